#!/bin/sh
# Started again, it goes on. Arguments override: sh coco_vg_pvt.sh dataset_attributes.data_root_dir=/data
exec antmmf run pretrain/coco_vg_pvt --nproc-per-node auto \
    training_parameters.save_dir=save/pretrain/coco_vg_pvt training_parameters.resume=auto "$@"
