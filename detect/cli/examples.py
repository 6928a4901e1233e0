"""Two examples of every command, which its ``--help`` ends with."""

_EXAMPLES = {
    "": (
        "detect photos/ --output out",
        "evaluate voc --devkit VOC2007 --split test --detections out",
    ),
    "detect": (
        "detect photos/ --output out",
        "detect 'photos/*.jpg' --model voc --model voc-2 --min-score 0.3 --output out",
    ),
    "draw": (
        "draw out --draw-score 0.6 --only dog --only cat",
        "draw out --no-drawings --crop crops --save-voc photos",
    ),
    "propose": (
        "propose photos/ --output proposals.parquet",
        "propose photos/ --method selective-search --limit 2000 --output proposals.mat",
    ),
    "compare": (
        "compare a/detections.json b/detections.json --devkit VOC2007 --split test",
        "compare a.json b.json --annotations instances_val2017.json --json -",
    ),
    "ensemble": (
        "ensemble a/detections.json b/detections.json --output both.json",
        "ensemble a b --method soft-nms --weight 2 --weight 1 --output both.parquet",
    ),
    "classify": (
        "classify photos/ --crops 10",
        "classify photos/ --top 3 --json classes.json",
    ),
    "report": (
        "report out",
        "report proposals.parquet --images photos/ --annotations VOC2007",
    ),
    "export": (
        "export --model voc --output voc.onnx",
        "export --model mine.safetensors --output mine.onnx",
    ),
    "pack": (
        "pack --data VOC2007 --output packed",
        "pack --data mine/ --classes mine.txt --format jpeg --output packed",
    ),
    "classes": (
        "classes voc",
        "classes mine.safetensors --json -",
    ),
    "info": (
        "info",
        "info --json -",
    ),
    "evaluate": (
        "evaluate voc --devkit VOC2007 --split test --detections out",
        "evaluate coco --annotations instances_val2017.json --detections results.json",
    ),
    "evaluate voc": (
        "evaluate voc --devkit VOC2007 --split test --detections out --report report",
        "evaluate voc --devkit mine/ --split val --detections out --at precision=0.9",
    ),
    "evaluate ilsvrc": (
        "evaluate ilsvrc --annotations ILSVRC/Annotations/DET/val --detections out",
        "evaluate ilsvrc --annotations DET/val --images val.txt --detections results.txt",
    ),
    "evaluate coco": (
        "evaluate coco --annotations instances_val2017.json --detections results.json",
        "evaluate coco --annotations instances_val2017.json --detections out --known",
    ),
    "evaluate proposals": (
        "evaluate proposals --devkit VOC2007 --split test --proposals proposals.parquet",
        "evaluate proposals --devkit mine/ --split val --proposals proposals.npz",
    ),
    "evaluate imagenet": (
        "evaluate imagenet --data ILSVRC2012 --crops 1 --crops 10 --crops 144",
        "evaluate imagenet --data ILSVRC2012 --model backbone.npz --json errors.json",
    ),
    "train": (
        "train detector --data mine --start voc --freeze trunk --output mine.safetensors",
        "train multibox --data VOC2007 --output multibox.safetensors",
    ),
    "train detector": (
        "train detector --data mine --start voc --freeze trunk --output mine.safetensors",
        "train detector --data VOC2007 --time-limit 60 --resume --output voc.safetensors",
    ),
    "train multibox": (
        "train multibox --data VOC2007 --output multibox.safetensors",
        "train multibox --data mine/ --model mine.safetensors --output multibox.safetensors",
    ),
    "train classifier": (
        "train classifier --data ILSVRC2012 --output backbone.npz",
        "train classifier --data mine/ --weights googlenet-bvlc --output mine.npz",
    ),
}


def examples(command: str) -> str:
    r"""Write the end of a command's help.

    Examples
    --------
    >>> examples("info")
    'Examples:\n\n\x08\ninception-rcnn info\ninception-rcnn info --json -'
    """
    # The sign \b keeps lines as they are.
    return "\n".join(["Examples:\n\n\b", *(f"inception-rcnn {example}" for example in _EXAMPLES[command])])
