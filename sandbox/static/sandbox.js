// Lists follow what arrives, and touch the page only when there is something new: focus and selection stay.
const live = document.querySelector("[data-live]");

async function follow() {
  if (document.hidden) return;
  const answer = await fetch(location.href, { headers: { Accept: "text/html" } }).catch(() => null);
  if (!answer || !answer.ok) return;
  const page = new DOMParser().parseFromString(await answer.text(), "text/html");
  const [fresh, shown] = [page, document].map((side) => side.getElementById("content"));
  const said = (side) => side.textContent.replace(/\s+/g, " ");
  if (!fresh || said(fresh) === said(shown) || shown.contains(document.activeElement)) return;
  shown.replaceChildren(...fresh.childNodes);
}

if (live) setInterval(follow, 5000);
