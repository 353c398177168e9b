#!/usr/bin/env python3
"""Order events and customers as JSON lines, the same for the same seed.

An event is a version of an order, about 206 bytes. An update carries the id and the customer of an earlier order, with
another region, a new amount and a new status. `_lsn` is the number of the line: the latest version of an order is the one
with the largest `_lsn`, which is its last line. Customers have the same rule in their own file.

Written below DIR:

    orders.jsonl                       all events
    orders.split2/part-{0,1}.jsonl     the same events by a hash of the order's id, as two feed ranges have them
    customers.jsonl                    10,000 customers, then 3,000 changes of a customer's segment
"""

import argparse
import itertools
import os
import random
import shutil
import zlib

CUSTOMERS = 10_000
SEGMENTS = 20
REGIONS = 50
UPDATE_SHARE = 0.3
STATUSES = ("placed", "paid", "shipped", "cancelled")
FIRST_SECOND = 1_750_000_000
EVENTS_PER_SECOND = 2_000
BUFFER = 1 << 20


def order_events(events, seed, most_orders=None):
    """Yields (id, line). Once `most_orders` orders exist, each further event is an update."""
    rng = random.Random(seed)
    rand, getrandbits = rng.random, rng.getrandbits
    weights = list(itertools.accumulate(1.0 / (k**1.1) for k in range(1, CUSTOMERS + 1)))
    regions = [f"region-{i:02d}" for i in range(REGIONS)]
    customer_of, region_of, upcoming = [], [], []
    limit = events + 1 if most_orders is None else most_orders
    for lsn in range(1, events + 1):
        if customer_of and (len(customer_of) >= limit or rand() < UPDATE_SHARE):
            order = int(rand() * len(customer_of))
            customer = customer_of[order]
            region = int(rand() * (REGIONS - 1))
            region += region >= region_of[order]
            region_of[order] = region
        else:
            if not upcoming:
                upcoming = rng.choices(range(1, CUSTOMERS + 1), cum_weights=weights, k=4096)
            order = len(customer_of)
            customer = upcoming.pop()
            customer_of.append(customer)
            region = int(rand() * REGIONS)
            region_of.append(region)
        amount = 100 + int(rand() * 99_900)
        status = STATUSES[int(rand() * 4)]
        second = FIRST_SECOND + lsn // EVENTS_PER_SECOND
        bits = getrandbits(64)
        id = f"o-{order}"
        yield id, (
            f'{{"id":"{id}","customer":"c-{customer}","region":"{regions[region]}","amount":{amount},"status":"{status}",'
            f'"_rid":"x5kdAL{bits & 0xFFFFFFFFFF:010x}AAAAAA==",'
            f'"_etag":"\\"{bits >> 32:08x}-0000-0700-0000-{second:08x}0000\\"","_lsn":{lsn},"_ts":{second}}}\n'
        ).encode()


def customer_events(seed, customers=CUSTOMERS):
    """Yields lines: each customer once, then 30 % as many changes of segment, of customers drawn at random."""
    rng = random.Random(f"customers of {seed}")
    segments = []
    for number in range(1, customers + 1):
        segments.append(rng.randrange(SEGMENTS))
        yield customer_line(number, segments[-1], number)
    for lsn in range(customers + 1, customers + int(customers * UPDATE_SHARE) + 1):
        number = rng.randrange(customers) + 1
        other = rng.randrange(SEGMENTS - 1)
        other += other >= segments[number - 1]
        segments[number - 1] = other
        yield customer_line(number, other, lsn)


def customer_line(number, segment, lsn):
    """One version of a customer."""
    return f'{{"id":"c-{number}","segment":"segment-{segment}","_lsn":{lsn}}}\n'.encode()


def write_data(directory, events, seed, most_orders=None, split_only=False):
    """Writes the files in `directory`, which appears only when they are complete."""
    partial = f"{directory}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    split = os.path.join(partial, "orders.split2")
    os.makedirs(split)
    parts = [open(os.path.join(split, f"part-{i}.jsonl"), "wb", buffering=BUFFER) for i in (0, 1)]
    whole = open(os.devnull if split_only else os.path.join(partial, "orders.jsonl"), "wb", buffering=BUFFER)
    write_part = [part.write for part in parts]
    for id, line in order_events(events, seed, most_orders):
        whole.write(line)
        write_part[zlib.crc32(id.encode()) & 1](line)
    for file in (whole, *parts):
        file.close()
    with open(os.path.join(partial, "customers.jsonl"), "wb") as file:
        file.writelines(customer_events(seed))
    os.rename(partial, directory)


def main():
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", metavar="DIR", help="must not exist")
    parser.add_argument("events", metavar="N", nargs="?", type=int, default=1_000_000)
    parser.add_argument("seed", metavar="SEED", nargs="?", type=int, default=42)
    parser.add_argument("--orders", type=int, help="once so many orders exist, every further event is an update")
    parser.add_argument("--split-only", action="store_true", help="without orders.jsonl")
    args = parser.parse_args()
    if os.path.exists(args.directory):
        parser.error(f"{args.directory} exists: remove it to make it again")
    write_data(args.directory, args.events, args.seed, args.orders, args.split_only)
    print(f"{args.directory}: {args.events} events, seed {args.seed}")


if __name__ == "__main__":
    main()
