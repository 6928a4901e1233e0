#!/bin/sh
# From a VOC development kit to the table: detect in a split, evaluate, write a report.
#
#   benchmarks/voc2007.sh VOCdevkit/VOC2007 [SPLIT] [OUTPUT] [OPTIONS OF detect...]
#
# SPLIT is test unless named, OUTPUT out/voc2007. Interrupted, the same command goes on where it stopped.
set -eu
test $# -ge 1 || { sed -n '2,6s/^# \{0,1\}//p' "$0" >&2; exit 2; }
devkit=$1 split=${2:-test} output=${3:-out/voc2007}
shift $(($# < 3 ? $# : 3))
list=$devkit/ImageSets/Main/$split.txt
test -f "$list" || { echo "$list: there is no such list; name the folder that holds ImageSets" >&2; exit 2; }
mkdir -p "$output"
test -d "$devkit/JPEGImages" || { echo "$devkit/JPEGImages: there is no such folder of pictures" >&2; exit 2; }
folder=$(cd "$devkit/JPEGImages" && pwd)
awk -v folder="$folder" 'NF { print folder "/" $1 ".jpg" }' "$list" > "$output/pictures.txt"
# The curve needs the weak detections too.
inception-rcnn detect "@$output/pictures.txt" --min-score 0.001 --output "$output" "$@"
for metric in voc07 voc12; do
	inception-rcnn evaluate voc --devkit "$devkit" --split "$split" --metric $metric \
		--detections "$output/detections.json" --json "$output/$metric.json" --report "$output/$metric"
done
