"use strict";
const cards = [...document.querySelectorAll("#cards article")].map(card => [card, card.textContent.toLowerCase()]);
const field = name => document.getElementById(name);
function search() {
  const words = field("words").value.toLowerCase().split(/\s+/).filter(Boolean);
  const verdict = field("verdict").value, source = field("source").value;
  let found = 0;
  for (const [card, text] of cards) {
    const fits = (!verdict || card.dataset.verdict === verdict) && (!source || card.dataset.source === source)
      && words.every(word => text.includes(word));
    card.hidden = !fits;
    found += fits;
  }
  field("found").textContent = found + " of " + cards.length + " rows";
}
field("search").hidden = false;
field("search").addEventListener("input", search);
field("search").addEventListener("submit", event => event.preventDefault());
search();
