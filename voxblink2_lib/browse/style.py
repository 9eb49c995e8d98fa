"""How the page looks, and what its lists do with arrow keys."""

from __future__ import annotations

CSS = """
.dark { --color-accent: var(--primary-400); }
.gradio-container, .gradio-container > main { width: 100%; max-width: 1500px !important;
  margin: auto; }
.utterances .wrap { flex-direction: column; gap: 2px; }
.utterances label { width: 100%; padding: 4px 8px; font-weight: 400; }
.utterances label span { overflow-wrap: anywhere; font-variant-numeric: tabular-nums; }
.voxblink2 h2 { font-size: 1.2rem; overflow-wrap: anywhere; margin: 1rem 0 .4rem; }
.voxblink2 h2:first-child { margin-top: 0; }
.voxblink2 h3 { font-size: 1rem; margin: .8rem 0 .3rem; }
.voxblink2 audio { width: 100%; } .voxblink2 video { max-width: 100%; }
.voxblink2 figure { margin: .4rem 0; } .voxblink2 svg { width: 100%; height: auto;
  overflow: visible; }
.voxblink2 table { border-collapse: collapse; width: 100%; border: 0 !important; }
.voxblink2 th, .voxblink2 td { text-align: left; vertical-align: top; border: 0 !important;
  padding: .2rem .6rem .2rem 0; border-bottom: 1px solid var(--border-color-primary) !important; }
.voxblink2 :is(thead, tbody, tr) { border: 0 !important; }
.voxblink2 .message { overflow-wrap: anywhere; }
.voxblink2 .number { text-align: right; white-space: nowrap; }
.voxblink2 th:has(.swatch) { white-space: nowrap; }
.voxblink2 .swatch { display: inline-block; width: .7em; height: .7em; margin-right: .5em; }
.voxblink2 .bars { width: 9rem; } .voxblink2 .bar { height: .8em; min-width: 1px; }
.voxblink2 .problem, .voxblink2 .marked { border-left: 4px solid #b3261e; padding-left: .6rem;
  overflow-wrap: anywhere; }
.voxblink2 .marked { border-color: #9a6700; }
:focus-visible { outline: 3px solid #1f6feb !important; outline-offset: 1px; }
"""
# Gradio's radio buttons are groups of one, which arrow keys do not leave.
HEAD = """<script>
const steps = { ArrowDown: 1, ArrowRight: 1, ArrowUp: -1, ArrowLeft: -1 };
document.addEventListener("keydown", (event) => {
  const step = steps[event.key], list = event.target.closest("fieldset");
  if (!step || !list || event.target.type !== "radio") return;
  const buttons = [...list.querySelectorAll("input[type=radio]")];
  const place = buttons.indexOf(event.target) + step + buttons.length;
  const next = buttons[place % buttons.length];
  event.preventDefault();
  next.focus();
  next.click();
});
</script>"""
