// What the theme's own script makes of a page, for those who use the keyboard or hear the page.
const SCROLLING = {
  tabindex: "0", // arrow keys then scroll it, in every browser
  role: "group",
  "aria-label": "Table that is wider than the page",
};
const tables = new ResizeObserver((entries) => {
  for (const { target } of entries) {
    const isWide = target.scrollWidth > target.clientWidth;
    for (const [name, value] of Object.entries(SCROLLING)) {
      if (isWide) target.setAttribute(name, value);
      else target.removeAttribute(name);
    }
  }
});

document$.subscribe(() => {
  document.querySelector('[data-md-component="search"]')?.setAttribute("aria-label", "Search");
  // A button to copy is no navigation.
  document.querySelectorAll(".md-code__nav").forEach((nav) => nav.setAttribute("role", "none"));
  document.querySelectorAll(".md-typeset__scrollwrap").forEach((wrap) => tables.observe(wrap));
});
