// Spaced repetition of the cards on the page, by FSRS, kept in the browser.

import { button } from "./practice.js"

const KEPT = "block-by-block:cards"
const NEW_AT_ONCE = 10

export async function start() {
  const { Rating, createEmptyCard, fsrs } = await import("./vendor/ts-fsrs.js")
  const scheduler = fsrs({ enable_fuzz: false })
  const all = document.querySelector(".cards")
  if (all.querySelector(".review")) return
  const cards = [...all.querySelectorAll(".card")]
  const review = document.createElement("div")
  review.className = "review"
  all.prepend(review)
  let fresh = NEW_AT_ONCE
  let deck = ""

  const kept = () => JSON.parse(localStorage[KEPT] || "{}")
  const ofDeck = () => cards.filter((card) => !deck || card.dataset.deck === deck)

  function waiting() {
    const [progress, now] = [kept(), new Date()]
    const known = ofDeck().filter((card) => progress[card.id])
    const unknown = ofDeck().filter((card) => !progress[card.id])
    const due = known.filter((card) => new Date(progress[card.id].due) <= now)
    return { due, known, unknown }
  }

  function overview(focus = false) {
    const { due, known, unknown } = waiting()
    const said = document.createElement("p")
    said.setAttribute("role", "status")
    const next = Math.min(fresh, unknown.length)
    said.textContent = `${due.length} due, ${next} new for now; ${known.length} of `
      + `${ofDeck().length} cards seen.`
    const begin = button(fresh ? "Review" : "Review more", () => {
      fresh ||= NEW_AT_ONCE
      ask()
    })
    const label = document.createElement("label")
    label.textContent = "Deck "
    const select = document.createElement("select")
    const decks = ["", ...new Set(cards.map((card) => card.dataset.deck))]
    select.append(...decks.map((name) => new Option(name || "All", name)))
    select.value = deck
    select.addEventListener("change", () => {
      deck = select.value
      overview()
      review.querySelector("select").focus()
    })
    label.append(select)
    review.replaceChildren(said, label, begin)
    if (known.length) {
      review.append(button("Forget my progress", () => {
        if (confirm("Forget the progress of all cards?")) {
          localStorage.removeItem(KEPT)
          overview(true)
        }
      }))
    }
    if (focus) begin.focus()
  }

  function ask() {
    const { due, unknown } = waiting()
    const card = due[0] ?? (fresh > 0 ? unknown[0] : undefined)
    if (!card) return overview(true)
    if (!due.length) fresh -= 1
    const front = document.createElement("div")
    front.className = "review-card"
    front.tabIndex = -1
    front.append(...copy(card, ".front"))
    const show = button("Show the answer", () => answer(card, front))
    review.replaceChildren(front, show, button("Stop", () => overview(true)))
    front.focus()
  }

  function answer(card, front) {
    const back = document.createElement("div")
    back.className = "review-card"
    back.tabIndex = -1
    back.append(...copy(card, ".back").filter((node) => node.tagName !== "SUMMARY"))
    const now = new Date()
    const before = kept()[card.id] ?? createEmptyCard(now)
    const grades = ["Again", "Hard", "Good", "Easy"].map((name) => {
      const { card: after } = scheduler.next(before, now, Rating[name])
      return button(`${name}: ${until(after.due - now)}`, () => {
        localStorage[KEPT] = JSON.stringify({ ...kept(), [card.id]: after })
        ask()
      })
    })
    const row = document.createElement("div")
    row.setAttribute("role", "group")
    row.setAttribute("aria-label", "How well did you know it?")
    row.append(...grades)
    review.replaceChildren(front, back, row)
    back.focus()
  }

  overview()
}

function copy(card, side) {
  return [...card.querySelector(side).cloneNode(true).childNodes]
}

function until(milliseconds) {
  const minutes = Math.round(milliseconds / 60_000)
  if (minutes < 60) return `${minutes} min`
  if (minutes < 24 * 60) return `${Math.round(minutes / 60)} h`
  return `${Math.round(minutes / 60 / 24)} d`
}
