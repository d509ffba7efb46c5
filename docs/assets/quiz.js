// What mkdocs-quiz lacks in the browser: fit to be offered to it.

export const KEPT = "quiz_progress_" // and the path of the page, as the plugin has it

export function start() {
  document.querySelectorAll(".quiz").forEach((quiz) => {
    askForAnAnswer(quiz)
    new MutationObserver(() => say(quiz)).observe(
      quiz.querySelector(".quiz-feedback"), { attributes: true, childList: true })
    say(quiz)
  })
}

// It takes an empty submission for a wrong answer: submit once there is one.
function askForAnAnswer(quiz) {
  const submit = quiz.querySelector("button[type=submit]")
  const update = () => {
    const blanks = [...quiz.querySelectorAll("input[type=text]")]
    submit.disabled = blanks.length
      ? blanks.some((blank) => !blank.value.trim())
      : !quiz.querySelector("input:checked")
  }
  quiz.addEventListener("input", update)
  quiz.addEventListener("click", () => setTimeout(update))
  update()
}

// It colours all that was chosen alike, and does not say what is missing.
function say(quiz) {
  const box = quiz.querySelector(".quiz-feedback")
  const choices = [...quiz.querySelectorAll("input[name=answer]")]
  const isShown = !box.classList.contains("hidden")
  if (!choices.length || !isShown || box.querySelector(".quiz-verdict")) return
  const chosen = choices.filter((choice) => choice.checked)
  const wrong = chosen.filter((choice) => !choice.dataset.correct).length
  const right = choices.filter((choice) => choice.dataset.correct).length
  const missing = right - (chosen.length - wrong)
  box.querySelectorAll(".quiz-feedback-item").forEach((item, index) => {
    const isRight = Boolean(chosen[index]?.dataset.correct)
    item.classList.toggle("correct", isRight)
    item.classList.toggle("incorrect", !isRight)
  })
  const faults = [wrong && `${wrong} wrong`, missing && `${missing} missing`]
  const verdict = document.createElement("p")
  verdict.className = "quiz-verdict"
  verdict.textContent = !wrong && !missing
    ? "Right."
    : right === 1 ? "Not right." : `Not right: ${faults.filter(Boolean).join(", ")}.`
  box.prepend(verdict)
}

// Its own reset fails on a page with a blank.
document.addEventListener("click", (event) => {
  if (!event.target.closest(".quiz-reset-all-link")) return
  event.preventDefault()
  event.stopImmediatePropagation()
  if (confirm("Forget your answers to the questions of this page?")) {
    localStorage.removeItem(KEPT + location.pathname)
    location.reload()
  }
}, true)
