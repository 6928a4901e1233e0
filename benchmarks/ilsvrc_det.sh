#!/bin/sh
# From the ILSVRC detection set to the table: detect in a list of images, evaluate by the kit's rules, write a report.
#
#   benchmarks/ilsvrc_det.sh ILSVRC MODEL [LIST] [OUTPUT] [OPTIONS OF detect...]
#
# ILSVRC holds Annotations/DET, Data/DET and ImageSets/DET. MODEL is a file trained on the 200 classes; LIST is val
# unless named, OUTPUT out/ilsvrc. BLACKLIST=FILE takes the kit's blacklist, META=FILE its meta_det.mat.
set -eu
test $# -ge 2 || { sed -n '2,7s/^# \{0,1\}//p' "$0" >&2; exit 2; }
root=$1 model=$2 list=${3:-val} output=${4:-out/ilsvrc}
shift $(($# < 4 ? $# : 4))
images=$root/ImageSets/DET/$list.txt
test -f "$images" || { echo "$images: there is no such list; name the folder that holds ImageSets/DET" >&2; exit 2; }
mkdir -p "$output"
# The pictures and annotations of val1 and val2 are those of val.
case $list in val[12]) part=val ;; *) part=$list ;; esac
test -d "$root/Data/DET/$part" || { echo "$root/Data/DET/$part: there is no such folder of pictures" >&2; exit 2; }
folder=$(cd "$root/Data/DET/$part" && pwd)
awk -v folder="$folder" 'NF { print folder "/" $1 ".JPEG" }' "$images" > "$output/pictures.txt"
inception-rcnn detect "@$output/pictures.txt" --model "$model" --min-score 0.01 --output "$output" "$@"
inception-rcnn evaluate ilsvrc --annotations "$root/Annotations/DET/$part" --images "$images" \
	--detections "$output/detections.json" --json "$output/ilsvrc.json" --report "$output" \
	${BLACKLIST:+--blacklist "$BLACKLIST"} ${META:+--meta "$META"}
