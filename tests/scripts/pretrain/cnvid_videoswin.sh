#!/bin/sh
# Started again, it goes on. Arguments override: sh cnvid_videoswin.sh dataset_attributes.data_root_dir=/data
exec antmmf run pretrain/cnvid_videoswin --nproc-per-node auto \
    training_parameters.save_dir=save/pretrain/cnvid_videoswin training_parameters.resume=auto "$@"
