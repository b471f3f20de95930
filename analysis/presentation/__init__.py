"""Tables, figures and pages as terminal text, HTML, LaTeX and SVG."""
