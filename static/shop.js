// A poll that brings nothing new must not touch the page: focus, half-made clicks and screen readers stay undisturbed.
function visible(element) {
  return element.textContent.replace(/\s+/g, " ").trim() + element.hasAttribute("hx-get") + element.dataset.every;
}

// A number that has changed says so for a moment.
const counts = new Map();

document.addEventListener("htmx:load", ({ detail }) => {
  for (const count of detail.elt.querySelectorAll("[data-count]")) {
    const { count: name } = count.dataset;
    count.classList.toggle("changed", counts.has(name) && counts.get(name) !== count.textContent);
    counts.set(name, count.textContent);
  }
});

document.addEventListener("htmx:beforeSwap", (event) => {
  const { target, serverResponse, shouldSwap, requestConfig } = event.detail;
  if (!shouldSwap) return;
  const page = new DOMParser().parseFromString(serverResponse, "text/html");
  const fresh = page.getElementById(target.id);
  // Another page came instead of the fragment: the session has ended, so let the whole page ask to sign in.
  if (!fresh) window.location.reload();
  // The former ticket to the channel (live.js) grows old.
  else if (target.dataset.live) target.dataset.live = fresh.dataset.live;
  // What a person has asked for, by a form, is shown in any case, and its address too.
  const isPoll = requestConfig.elt === target;
  event.detail.shouldSwap = fresh !== null && (!isPoll || visible(fresh) !== visible(target));
});
