#!/usr/bin/env python3
"""Makes ec2.csv, the dated catalogue in the binary, from public data. Run by hand when newer sources are at hand:

    python3 src/capacity/catalogue/make.py FOLDER

FOLDER holds (columns are named in each file's first line; NOTICE.md says where they come from)
    ec2-catalog-2025-05.csv               types, zones and prices of six regions, 2025-05-28
    ec2-ondemand-us-east-1-changes.csv    on-demand prices of us-east-1 as they appeared, changed or vanished
    ec2-types-2026.csv                    what each type is, from DescribeInstanceTypes

Prices stay the text that the sources give, so that no digit is lost on the way. In us-east-1 the last known on-demand
price replaces the catalogue's, and a type that is no longer listed there is dropped. Types that are newer than the
catalogue are known in us-east-1 alone, without a spot average.
"""

import csv
import decimal
import math
import pathlib
import sys

CATALOGUE_DATE = "2025-05-28"
OVERLAY_REGION = "us-east-1"
# The catalogue's names of accelerators, in EC2's own words; types that ec2-types-2026 knows need none of these.
ACCELERATORS = {
    "AMD Radeon Pro V520": "Radeon Pro V520",
    "NVIDIA GRID K520": "K520",
    "NVIDIA T4 Tensor Core": "T4",
    "NVIDIA T4G Tensor Core": "T4g",
    "NVIDIA Tesla K80": "K80",
    "NVIDIA Tesla M60": "M60",
    "NVIDIA Tesla V100": "V100",
}
ARCHITECTURES = {"x86_64": "amd64", "arm64": "arm64"}


def rows(folder, name):
    with open(folder / name, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def last_prices(changes):
    """Type -> price of its last change ('' = no longer listed), and the date of the last snapshot."""
    prices, last = {}, ""
    for row in sorted(changes, key=lambda row: row["snapshot_utc"]):
        prices[row["instance_type"]] = row["ondemand_usd_h"]
        last = row["snapshot_utc"][:10]
    return prices, last


def machine_of(row, known):
    """vCPU, memory in MiB, GPUs, the GPU's name and architecture. Only GPUs count: a program for CUDA does not run on Neuron devices."""
    if known:
        vcpu, memory, arch = known["vcpu"], known["memory_mib"], known["arch"]
        gpus, name = (known["accel_count"], known["accel_name"]) if known["accel_kind"] == "gpu" else ("0", "")
    else:
        vcpu, memory, arch = row["vcpu"], math.floor(decimal.Decimal(row["memory_gib"]) * 1024), row["arch"]
        is_gpu = row["accel_name"] in ACCELERATORS or row["accel_name"].startswith("NVIDIA")
        gpus, name = (row["accel_count"], ACCELERATORS.get(row["accel_name"], row["accel_name"].removeprefix("NVIDIA "))) if is_gpu else ("0", "")
    # A share of a GPU (g6f) is no GPU to a scheduler that counts whole ones.
    return [vcpu, memory, gpus, name if gpus != "0" else "", ARCHITECTURES[arch.split("|")[-1]]]


def zone_numbers(zone_ids):
    """use1-az1|use1-az4 -> 14: the region gives the rest of a zone id."""
    numbers = sorted(zone.split("-az")[1] for zone in zone_ids.split("|") if zone)
    assert all(len(number) == 1 for number in numbers), f"a zone number with two digits: {zone_ids}"
    return "".join(numbers)


def main(folder):
    known = {row["instance_type"]: row for row in rows(folder, "ec2-types-2026.csv")}
    overlay, overlay_date = last_prices(rows(folder, "ec2-ondemand-us-east-1-changes.csv"))
    out, seen = [], set()
    for row in rows(folder, "ec2-catalog-2025-05.csv"):
        name, region, price, date = row["instance_type"], row["region"], row["ondemand_usd_h"], ""
        if region == OVERLAY_REGION:
            seen.add(name)
            if name in overlay:
                price, date = overlay[name], overlay_date
        if price:
            zones = row["zone_ids"] or known.get(name, {}).get(f"zones_{region}", "")
            out.append([name, region, *machine_of(row, known.get(name)), zone_numbers(zones), price, row["spot_usd_h_30d_avg"], date])
    for name, price in overlay.items():
        if price and name not in seen and name in known:
            zones = zone_numbers(known[name][f"zones_{OVERLAY_REGION}"])
            out.append([name, OVERLAY_REGION, *machine_of(None, known[name]), zones, price, "", overlay_date])
    out.sort()
    with open(pathlib.Path(__file__).with_name("ec2.csv"), "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow("type region vcpu memory_mib gpus gpu arch zones on_demand spot_average as_of".split())
        writer.writerows(out)
    print(f"{len(out)} rows, catalogue {CATALOGUE_DATE}, {OVERLAY_REGION} overlay {overlay_date}")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(pathlib.Path(sys.argv[1]))
