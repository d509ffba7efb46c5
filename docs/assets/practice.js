// Progress over all questions, to export and to forget; and the timer of a scenario.

import { KEPT } from "./quiz.js"

export function start() {
  document.querySelectorAll(".questions").forEach(showProgress)
  document.querySelectorAll(".timer:empty").forEach(offerTimer)
}

function kept() {
  const keys = Object.keys(localStorage).filter((key) => key.startsWith(KEPT))
  return Object.fromEntries(keys.map((key) => [key, JSON.parse(localStorage[key])]))
}

export function button(label, onClick) {
  const made = document.createElement("button")
  made.type = "button"
  made.className = "md-button"
  made.textContent = label
  made.addEventListener("click", onClick)
  return made
}

function showProgress(questions) {
  const answers = kept()
  const links = [...questions.querySelectorAll("td a")]
  const states = links.map((link) => {
    const { pathname, hash } = new URL(link.href)
    const answer = answers[KEPT + pathname]?.[`quiz-${hash.slice(1)}`]
    const state = answer ? (answer.correct ? "right" : "not right yet") : ""
    link.parentElement.querySelector(".answered")?.remove()
    if (state) {
      const mark = document.createElement("span")
      mark.className = "answered"
      mark.textContent = ` ${state}`
      link.after(mark)
    }
    return state
  })
  const right = states.filter((state) => state === "right").length
  const tools = questions.querySelector(".progress") || document.createElement("div")
  tools.className = "progress"
  const said = document.createElement("p")
  said.textContent = `${links.length} questions, ${states.filter(Boolean).length} `
    + `answered, ${right} right. Answers are kept in this browser only.`
  tools.replaceChildren(said)
  if (states.some(Boolean)) {
    tools.append(button("Export the answers", () => save(answers)),
      button("Forget all answers", () => {
        if (!confirm("Forget your answers on all pages?")) return
        Object.keys(kept()).forEach((key) => localStorage.removeItem(key))
        showProgress(questions)
      }))
  }
  questions.prepend(tools)
}

function save(answers) {
  const link = document.createElement("a")
  const text = JSON.stringify({ exported: new Date().toISOString(), answers }, null, 2)
  link.href = URL.createObjectURL(new Blob([text], { type: "application/json" }))
  link.download = "block-by-block-answers.json"
  link.click()
  URL.revokeObjectURL(link.href)
}

function offerTimer(timer) {
  const minutes = Number(timer.dataset.minutes)
  const left = document.createElement("span")
  left.setAttribute("role", "timer")
  const end = document.createElement("span")
  end.setAttribute("role", "status")
  let ticking = 0
  const control = button(`Start a timer: ${minutes} minutes`, () => {
    clearInterval(ticking)
    const stops = Date.now() + minutes * 60_000
    const show = () => {
      const seconds = Math.max(0, Math.round((stops - Date.now()) / 1000))
      const rest = String(seconds % 60).padStart(2, "0")
      left.textContent = `${Math.floor(seconds / 60)}:${rest}`
      end.textContent = seconds ? "" : "Time is up. Compare your answer."
      if (!seconds) clearInterval(ticking)
    }
    ticking = setInterval(show, 500)
    control.textContent = "Start the timer again"
    show()
  })
  timer.append(control, left, end)
}
