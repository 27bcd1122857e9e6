"""Writes spirals.json, the data set of train.py: two interleaved spirals with noise, 200 points of [x, y, class]."""
import json, math, os, random

generator = random.Random(20)
rows = []
for i in range(100):
    angle = i / 100 * 3 * math.pi
    for label, turn in ((0, 0.0), (1, math.pi)):
        radius = 0.2 + angle / 6
        rows.append([round(radius * math.cos(angle + turn) + generator.gauss(0, 0.05), 6),
                     round(radius * math.sin(angle + turn) + generator.gauss(0, 0.05), 6), label])
with open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "spirals.json"), "w") as file:
    json.dump(rows, file)
