// A poll that brings nothing new must not touch the page: focus, half-made clicks and screen readers stay undisturbed.
function visible(element) {
  return element.textContent.replace(/\s+/g, " ").trim() + element.hasAttribute("hx-get");
}

document.addEventListener("htmx:beforeSwap", (event) => {
  const { target, serverResponse, shouldSwap } = event.detail;
  if (!shouldSwap) return;
  const page = new DOMParser().parseFromString(serverResponse, "text/html");
  const fresh = page.getElementById(target.id);
  // Another page came instead of the fragment: the session has ended, so let the whole page ask to sign in.
  if (!fresh) window.location.reload();
  event.detail.shouldSwap = fresh !== null && visible(fresh) !== visible(target);
});
