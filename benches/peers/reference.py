#!/usr/bin/env python3
"""The right results, by sqlite3: writes DIR/w1.ref to DIR/w4.ref for the data that `generate.py` wrote in DIR.

w1  key<TAB>sum<TAB>count     per region, of all events
w2  key<TAB>sum<TAB>count     per region, of the latest version of each order
w3  key<TAB>sum<TAB>count     per segment, of the latest versions with their customers' latest segments
w4  region<TAB>rank<TAB>id<TAB>amount   the 10 largest of the latest versions; of equal amounts the smaller id first
"""

import argparse
import glob
import json
import os
import sqlite3

SCHEMA = """
create table event (region text, amount integer);
create table latest_order (id text primary key, lsn integer, customer text, region text, amount integer) without rowid;
create table latest_customer (id text primary key, lsn integer, segment text) without rowid;
"""
INSERT_EVENT = "insert into event values (:region, :amount)"
UPSERT_ORDER = """
insert into latest_order values (:id, :_lsn, :customer, :region, :amount)
on conflict (id) do update set lsn = excluded.lsn, customer = excluded.customer, region = excluded.region,
    amount = excluded.amount where excluded.lsn > lsn
"""
UPSERT_CUSTOMER = """
insert into latest_customer values (:id, :_lsn, :segment)
on conflict (id) do update set lsn = excluded.lsn, segment = excluded.segment where excluded.lsn > lsn
"""
QUERIES = {
    "w1": "select region, sum(amount), count(*) from event group by region order by region",
    "w2": "select region, sum(amount), count(*) from latest_order group by region order by region",
    "w3": """
        select c.segment, sum(o.amount), count(*)
        from latest_order o join latest_customer c on c.id = o.customer group by c.segment order by c.segment
        """,
    "w4": """
        select region, place, id, amount from (
            select region, id, amount, row_number() over (partition by region order by amount desc, id) as place
            from latest_order)
        where place <= 10 order by region, place
        """,
}


def json_lines(paths):
    """The documents of the files."""
    for path in paths:
        with open(path, "rb") as file:
            yield from map(json.loads, file)


def order_files(directory):
    """The files that hold all order events together."""
    whole = os.path.join(directory, "orders.jsonl")
    return [whole] if os.path.exists(whole) else sorted(glob.glob(os.path.join(directory, "orders.split2", "*.jsonl")))


def results(directory, workloads=tuple(QUERIES)):
    """The lines of each workload's result."""
    db = sqlite3.connect(":memory:")
    db.executescript(SCHEMA)
    if "w1" in workloads:
        db.executemany(INSERT_EVENT, json_lines(order_files(directory)))
    if set(workloads) - {"w1"}:
        db.executemany(UPSERT_ORDER, json_lines(order_files(directory)))
    if "w3" in workloads:
        db.executemany(UPSERT_CUSTOMER, json_lines([os.path.join(directory, "customers.jsonl")]))
    return {w: ["\t".join(map(str, row)) for row in db.execute(QUERIES[w])] for w in workloads}


def write_references(directory, workloads=tuple(QUERIES)):
    """Writes the results, and says which."""
    for workload, lines in results(directory, workloads).items():
        path = os.path.join(directory, f"{workload}.ref")
        with open(f"{path}.partial", "w", encoding="ascii") as file:
            file.writelines(line + "\n" for line in lines)
        os.rename(f"{path}.partial", path)


def difference(reference, output):
    """None if the files hold the same lines in whatever order, else what differs."""
    try:
        with open(output, encoding="utf-8") as file:
            found = sorted(file.read().splitlines())
    except OSError as error:
        return f"no output: {error}"
    with open(reference, encoding="utf-8") as file:
        expected = sorted(file.read().splitlines())
    if found == expected:
        return None
    missing, extra = sorted(set(expected) - set(found)), sorted(set(found) - set(expected))
    return (
        f"{len(missing)} of {len(expected)} lines are missing, {len(found) - len(expected) + len(missing)} should not be there; "
        f"expected {missing[:2]}, found {extra[:2]}"
    )


def main():
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", metavar="DIR")
    parser.add_argument("--only", action="append", choices=list(QUERIES), help="only this workload; can be repeated")
    args = parser.parse_args()
    write_references(args.directory, tuple(args.only or QUERIES))


if __name__ == "__main__":
    main()
