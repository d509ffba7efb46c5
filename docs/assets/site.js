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

// The quiz plugin takes an empty submission for a wrong answer: submit once there is one.
document$.subscribe(() => {
  document.querySelectorAll(".quiz form").forEach((form) => {
    const submit = form.querySelector("button[type=submit]")
    const update = () => {
      const open = form.querySelector("input:is([type=radio], [type=checkbox]):enabled")
      if (submit && open) submit.disabled = !form.querySelector("input:checked")
    }
    form.addEventListener("input", update)
    form.addEventListener("click", () => setTimeout(update))
    update()
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
