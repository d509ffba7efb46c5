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
