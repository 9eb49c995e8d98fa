// What a random user sees of a page: what is asked of the server is counted until its answer is
// there; the page is at rest when nothing is asked, no sign of waiting is seen, and nothing of it has
// changed for some frames.
(() => {
  let open = 0;
  const send = window.fetch;
  window.fetch = async (...words) => {
    if (!String(words[0]?.url ?? words[0]).includes("/queue/")) return send(...words);
    open += 1;
    try {
      const answer = await send(...words);
      answer.clone().arrayBuffer().catch(() => 0).finally(() => { open -= 1; });
      return answer;
    } catch (error) { open -= 1; throw error; }
  };
  const isSeen = (element) =>
    element.checkVisibility({ opacityProperty: true, visibilityProperty: true });
  const isWaiting = () =>
    [...document.querySelectorAll("[data-testid=status-tracker] .loading")].some(isSeen);
  window.atRest = () => new Promise((done, fail) => {
    let quiet = 0, left = 6000;
    const observer = new MutationObserver(() => { quiet = 0; });
    observer.observe(document.body,
      { subtree: true, childList: true, attributes: true, characterData: true });
    const look = () => {
      quiet = open || isWaiting() ? 0 : quiet + 1;
      left -= 1;
      if (quiet < 4 && left) return requestAnimationFrame(look);
      observer.disconnect();
      left ? done() : fail(new Error("The page does not come to rest."));
    };
    requestAnimationFrame(look);
  });
  // Without what is only read aloud, and goes away by itself.
  const text = () => {
    const said = [...document.querySelectorAll("[aria-live], [role=status]")];
    const words = new Set(said.flatMap((each) => each.innerText.split("\n")));
    const lines = document.body.innerText.split("\n");
    return lines.filter((each) => each && !words.has(each)).join("\n");
  };
  window.contents = () => [
    text(),
    ...[...document.querySelectorAll("input, textarea")].map((each) => each.value + each.checked),
    ...[...document.querySelectorAll("svg")].map((each) => each.checkVisibility() && each.outerHTML),
    ...[...document.querySelectorAll("audio, video")].map((each) => each.src),
  ].join("\n");
  const kindOf = (element) => {
    const role = element.getAttribute("role");
    if (role === "tab") return "tab";
    if (role === "combobox") return "dropdown";
    if (element.closest(".token, .remove-all, .token-remove")) return "token";
    if (element.matches("button")) return "button";
    if (element.matches("input[type=radio]")) return "radio";
    if (element.matches("input[type=text], textarea")) return "text";
    if (element.matches("audio, video")) return "player";
    return `unknown ${element.outerHTML.slice(0, 200)}`;
  };
  const labelOf = (element, kind) => {
    if (kind === "radio") return element.closest("fieldset").querySelector("span").innerText;
    if (kind === "player") return element.tagName.toLowerCase();
    if (kind === "token") {
      return element.closest(".block").querySelector("[role=combobox]").ariaLabel;
    }
    return element.labels?.[0]?.innerText || element.ariaLabel || element.innerText;
  };
  window.controls = () => {
    const all = "a[href], button, input, textarea, select, summary, audio, video, [tabindex]," +
      " [contenteditable]";
    window.elements = [...document.querySelectorAll(all)].filter((each) =>
      !each.disabled && each.tabIndex >= 0 && isSeen(each));
    return window.elements.map((each, place) => {
      const kind = kindOf(each);
      const chosen = each.checked === true || each.ariaSelected === "true" ||
        (kind === "text" && each.value !== "");
      return [kind, labelOf(each, kind).trim(), place, chosen, each.value ?? ""];
    });
  };
})();
