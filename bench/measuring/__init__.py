"""How anything is measured: load by wrk, in turns, told as medians, judged by targets, drawn."""
