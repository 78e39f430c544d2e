"""People compare, rate and review what models write, on a web page (sections 3.3 and 4.4; EV-7 to EV-12)."""
