"""The four colours of all sheets, plots and pages"""

INK, GREY, MARK, EDGE = "#1a2233", "#6b7280", "#d6336c", "#d9dde3"  # text, lesser text, target, edges
