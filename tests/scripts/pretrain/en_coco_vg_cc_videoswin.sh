#!/bin/sh
# Started again, it goes on. Arguments override: sh en_coco_vg_cc_videoswin.sh dataset_attributes.data_root_dir=/data
exec antmmf run pretrain/en_coco_vg_cc_videoswin --nproc-per-node auto \
    training_parameters.save_dir=save/pretrain/en_coco_vg_cc_videoswin training_parameters.resume=auto "$@"
