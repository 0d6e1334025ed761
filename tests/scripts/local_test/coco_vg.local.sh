#!/bin/sh
# SNP-S3 pre-training with small encoders on miniatures of COCO and Visual Genome: a minute or two on a CPU.
#   sh coco_vg.local.sh                    in a temporary folder, which goes when it ends
#   DATA=FOLDER sh coco_vg.local.sh        in FOLDER, where miniatures, checkpoints and predictions stay
# Arguments override: sh coco_vg.local.sh training_parameters.max_iterations=100
set -eu
[ -n "${DATA:-}" ] || { DATA=$(mktemp -d); trap 'rm -rf "$DATA"' EXIT; }
for name in coco visual_genome; do
    [ -d "$DATA/$name" ] || antmmf data miniature "$name" --out "$DATA/$name"
done
set -- \
    'model_attributes.vision_encoder={type: antmmf-vision:small_video, params: {image_size: 64}}' \
    model_attributes.text_encoder.params.name=google/bert_uncased_L-2_H-128_A-2 \
    model_attributes.text_encoder.params.pretrained=false \
    input_attributes.train_transform.params.size=64 \
    input_attributes.eval_transform.params.size=64 \
    "dataset_attributes.data_root_dir=$DATA" \
    "training_parameters.save_dir=$DATA/run-$$" \
    training_parameters.run_type=train+val+predict \
    training_parameters.batch_size=8 \
    training_parameters.max_iterations=20 \
    training_parameters.log_interval=5 \
    training_parameters.num_threads=1 \
    training_parameters.enable_amp=false \
    "$@"
antmmf run pretrain/coco_vg_videoswin "$@"
