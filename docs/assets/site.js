// Names for the controls that Material adds without one.
document$.subscribe(() => {
  const label = () => {
    document.querySelectorAll(".md-annotation__index").forEach((link) => {
      const id = link.querySelector("[data-md-annotation-id]")
      link.setAttribute("aria-label", `Note ${id ? id.dataset.mdAnnotationId : ""}`)
    })
    document.querySelectorAll("nav.md-code__nav").forEach((nav, index) => {
      nav.setAttribute("aria-label", `Code block ${index + 1}`)
    })
  }
  label()
  setTimeout(label, 300)
})

// Scripts that only some pages need.
const here = document.currentScript.src
const marks = { quiz: ".quiz", practice: ".questions, .timer", cards: ".cards" }
document$.subscribe(() => {
  Object.entries(marks).forEach(([name, mark]) => {
    if (!document.querySelector(mark)) return
    import(new URL(`${name}.js`, here)).then((script) => script.start())
  })
})

// The chooser is a nested list. Here each answer folds, and opening one closes the other.
document$.subscribe(() => {
  document.querySelectorAll(".chooser li:not(:has(> details))").forEach((item) => {
    const [label, ...rest] = item.children
    const details = document.createElement("details")
    const summary = document.createElement("summary")
    summary.append(...label.childNodes)
    label.remove()
    details.append(summary, ...rest)
    item.append(details)
  })
  // Material would load the page anew for its first link within the page, folded again.
  document.querySelectorAll(".chooser a").forEach((link) => {
    link.target = "_self"
  })
  document.querySelectorAll(".chooser ul").forEach((list, index) => {
    list.querySelectorAll(":scope > li > details").forEach((details) => {
      details.name = `chooser-${index}`
    })
  })
})
