#!/bin/sh
# From the ILSVRC detection set to the table: detect in a list of images, evaluate by the kit's rules, write a report.
#
#   benchmarks/ilsvrc_det.sh ILSVRC MODEL [LIST] [OUTPUT] [OPTIONS OF detect...]
#
# ILSVRC holds Annotations/DET, Data/DET and ImageSets/DET. MODEL is of the 200 classes; LIST is val unless named, OUTPUT
# out/ilsvrc. BLACKLIST=FILE takes the kit's blacklist, META=FILE its meta_det.mat.
#
# TRAIN=1 trains first, on train and val1, and writes MODEL; LIST is val2 then, GPUS=N is the number of GPUs (1). Lists val1
# and val2 that are not there are made. Interrupted, the same command goes on where it stopped.
set -eu
test -n "${2:-}" || shift $#
test $# -ge 2 || { sed -n '2,10s/^#[ ]\{0,1\}//p' "$0" >&2; exit 2; }
root=$1 model=$2 list=${3:-val${TRAIN:+2}} output=${4:-out/ilsvrc}
shift $(($# < 4 ? $# : 4))
images=$root/ImageSets/DET/$list.txt
mkdir -p "$output"

# A step of the training, unless its model is there. A checkpoint in the cache is gone on from.
train() {
	kind=$1 file=$2
	shift 2
	test ! -f "$file" || return 0
	cache=$output/cache name=$(basename "$file" .safetensors)
	test ! -f "$cache/$name.$kind.checkpoint.safetensors" || set -- "$@" --resume
	command=inception-rcnn
	test "${GPUS:-1}" = 1 || command="torchrun --nproc-per-node $GPUS $(command -v inception-rcnn)"
	$command train "$kind" --data "$root" --classes ilsvrc --batch 32 --output "$file" --cache "$cache" "$@"
}

if test -n "${TRAIN:-}"; then
	test -f "$root/ImageSets/DET/val1.txt" && test -f "$root/ImageSets/DET/val2.txt" || python -c "import sys
from inception_rcnn.detect.train.data import write_ilsvrc_halves
write_ilsvrc_halves(sys.argv[1])" "$root"
	first=$output/first.safetensors multibox=$output/multibox.safetensors
	train detector "$first" --method selective-search --epochs 6 --learning-rate 0.012 --class-agnostic
	train multibox "$multibox" --model "$first"
	train detector "$model" --start "$first" --freeze trunk --multibox "$multibox" --epochs 2 --learning-rate 0.008
	set -- --multibox "$multibox" "$@"
fi

test -f "$images" || { echo "$images: there is no such list; name the folder that holds ImageSets/DET" >&2; exit 2; }
# The pictures and annotations of val1 and val2 are those of val.
case $list in val[12]) part=val ;; *) part=$list ;; esac
test -d "$root/Data/DET/$part" || { echo "$root/Data/DET/$part: there is no such folder of pictures" >&2; exit 2; }
folder=$(cd "$root/Data/DET/$part" && pwd)
awk -v folder="$folder" 'NF { print folder "/" $1 ".JPEG" }' "$images" > "$output/pictures.txt"
# The curve needs the weak detections too.
inception-rcnn detect "@$output/pictures.txt" --model "$model" --min-score 0.001 --output "$output" "$@"
inception-rcnn evaluate ilsvrc --annotations "$root/Annotations/DET/$part" --images "$images" \
	--detections "$output/detections.json" --json "$output/ilsvrc.json" --report "$output" \
	${BLACKLIST:+--blacklist "$BLACKLIST"} ${META:+--meta "$META"}
