#!/usr/bin/env bash
# Deadline policies on the measured traces: writes training.md and its pictures.
#   training.sh PURSER TRACES_DIR OUT_DIR
set -euo pipefail
purser=$1 traces=$2 out=$3
page=$out/training.md
mkdir -p "$out/training"

simulate() { "$purser" simulate training --traces "$traces/$1" "${@:2}"; }

# A heading, a sentence, and what the command prints.
section() {
  local heading=$1 about=$2 file=$3
  shift 3
  echo "training: $heading" >&2
  printf '\n## %s\n%s\n\n```text\n$ purser simulate training --traces %s%s\n' "$heading" "$about" "$file" "$(printf ' %s' "${@##*/}")"
  simulate "$file" "$@"
  printf '```\n'
}

# One job's life.
picture() {
  local name=$1 about=$2 file=$3
  shift 3
  simulate "$file" "$@" --plot "$out/training/$name.svg" >/dev/null
  printf '\n![%s](training/%s.svg)\n\n%s\n' "$about" "$name" "$about"
}

started=$SECONDS
{
  printf '# Deadline policies side by side\n\nWritten by `make bench-training`; do not edit. [What the rules are, and how to read this](scheduling.md).\n'
  section "One zone" "Each zone by itself, 24 starts." spot-traces.csv --rows
  section "Several zones" "The zones of a trace together, 12 starts." spot-traces.csv --zones multi --rows
  section "Wrong durations" "One zone; the true work is 0.7 to 1.3 times what the policy is told. A miss is avoidable where on-demand from the start would have kept the deadline." \
    spot-traces.csv --duration-error 0.3
  section "Prices that differ: H100 in 13 zones" "Gangs of 1 to 16, in USD." h100-traces.csv --prices "$traces/prices.csv"
  section "Prices that move: V100 in 6 zones" "In USD." spot-traces.csv --prices "$traces/prices.csv"
  printf '\n## One job'"'"'s life\n'
  picture one-zone "One zone with long gaps: who waits, who buys, and when." spot-traces.csv --group availability/1-node/aws-10-26-2022 --job-fraction 0.8 --restart-overhead 360 --starts 5 --plot-run 22
  picture several-zones "Two zones, 16 machines each." spot-traces.csv --zones multi --group availability/16-node --job-fraction 0.8 --restart-overhead 720 --plot-run 7
  picture prices "13 zones at 13 prices, a gang of 8." h100-traces.csv --prices "$traces/prices.csv" --group all/gang-8 --job-fraction 0.8 --restart-overhead 360 --plot-run 6
} >"$page"
echo "training: $((SECONDS - started)) s on $(nproc) cores, written to $page" >&2
