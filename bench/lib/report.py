# SPDX-License-Identifier: BSD-2-Clause
"""What a run found: as a table, as JSON, as a picture."""
import json
import os
import shutil
import statistics
import subprocess
import sys


def say(text):
    print(text, file=sys.stderr, flush=True)


def summary(values):
    return {"median": statistics.median(values), "min": min(values), "max": max(values), "values": values}


def ratio(better, viaduct, kernel):
    """How many times better Viaduct is."""
    return kernel / viaduct if better == "less" else viaduct / kernel


def short(value):
    """Three significant digits, with k or M."""
    for limit, divisor, suffix in ((1e6, 1e6, "M"), (1e4, 1e3, "k")):
        if value >= limit:
            value, unit = value / divisor, suffix
            break
    else:
        unit = ""
    digits = 0 if value >= 100 else 1 if value >= 10 else 2
    return f"{value:.{digits}f}{unit}"


def spread(one):
    return f"{short(one['median'])} ({short(one['min'])}..{short(one['max'])})"


def table(results):
    """Markdown, so that it can stand in a README."""
    rows = [["workload", "unit", "cores", "kernel", "Viaduct", "times better", "than the kernel's best placement",
             "floor", "Viaduct / floor"]]
    for one in results:
        rows.append([
            one["title"], one["unit"], one["placement"],
            spread(one["kernel"]) if one.get("kernel") else "-",
            spread(one["viaduct"]) if one.get("viaduct") else "not measured",
            f"{one['ratio']:.1f}" if one.get("ratio") else "-",
            f"{one['ratio_best']:.1f}" if one.get("ratio_best") else "-",
            short(one["floor"]),
            f"{one['floor_multiple']:.1f}" if one.get("floor_multiple") else "-",
        ])
    return markdown(rows)


def markdown(rows):
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ["| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths)) + " |" for row in rows]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)


def write_json(path, data):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    if "SUDO_UID" in os.environ:  # what root writes in a user's checkout stays the user's
        os.chown(os.path.dirname(path), int(os.environ["SUDO_UID"]), int(os.environ["SUDO_GID"]))
    with open(path + ".new", "w", encoding="utf-8") as out:
        json.dump(data, out, indent=1)
        out.write("\n")
    os.replace(path + ".new", path)


PLOT = """
set terminal {terminal} font "sans,12"
set output "{output}"
set title "Times better than the kernel (same cores, median of {rounds} rounds, bars: spread)"
set style fill solid 0.8 border -1
set grid ytics
set logscale y
set yrange [0.5:{top}]
set xrange [-0.7:{last}]
set ylabel "times"
set xtics rotate by -40 scale 0
set bmargin 11
set rmargin 12
set key top right
plot "{data}" using 1:($6 == 2 ? $3 : NaN):4:5:(0.7):xtic(2) with boxerrorbars lc rgb "#2f6f9f" title "two cores", \\
     "{data}" using 1:($6 == 1 ? $3 : NaN):4:5:(0.7):xtic(2) with boxerrorbars lc rgb "#8fb04f" title "one core", \\
     "{data}" using 1:($5 * 1.15):(sprintf("%.1f", $3)) with labels notitle, \\
     1 with lines lw 2 lc rgb "#a04040" title "kernel"
"""


def picture(base, results, rounds):
    """base.svg and base.png, if gnuplot is here. Returns the files written."""
    drawn = [one for one in results if one.get("ratio")]
    if not drawn or not shutil.which("gnuplot"):
        return []
    written = []
    data = base + ".dat"
    with open(data, "w", encoding="utf-8") as out:
        for i, one in enumerate(drawn):
            kernel, viaduct = one["kernel"], one["viaduct"]
            low = ratio(one["better"], viaduct["max" if one["better"] == "less" else "min"], kernel["median"])
            high = ratio(one["better"], viaduct["min" if one["better"] == "less" else "max"], kernel["median"])
            cores = 1 if one["placement"] == "one" else 2
            out.write(f'{i} "{one["workload"]}" {one["ratio"]:.4f} {low:.4f} {high:.4f} {cores}\n')
    for terminal, suffix in (("svg size 1400,700", ".svg"), ("pngcairo size 1400,700", ".png")):
        script = PLOT.format(terminal=terminal, output=base + suffix, data=data, rounds=rounds,
                             top=3 * max(one["ratio"] for one in drawn), last=len(drawn) - 0.3)
        done = subprocess.run(["gnuplot"], input=script, text=True, capture_output=True, check=False)
        if done.returncode == 0:
            written.append(base + suffix)
        else:
            written.append(f"gnuplot failed for {suffix}: {done.stderr.strip()[-200:]}")
    os.remove(data)
    return written
