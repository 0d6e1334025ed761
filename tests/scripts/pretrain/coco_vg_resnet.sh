#!/bin/sh
# Started again, it goes on. Arguments override: sh coco_vg_resnet.sh dataset_attributes.data_root_dir=/data
exec antmmf run pretrain/coco_vg_resnet --nproc-per-node auto \
    training_parameters.save_dir=save/pretrain/coco_vg_resnet training_parameters.resume=auto "$@"
