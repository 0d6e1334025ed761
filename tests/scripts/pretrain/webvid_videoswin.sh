#!/bin/sh
# Started again, it goes on. Arguments override: sh webvid_videoswin.sh dataset_attributes.data_root_dir=/data
exec antmmf run pretrain/webvid_videoswin --nproc-per-node auto \
    training_parameters.save_dir=save/pretrain/webvid_videoswin training_parameters.resume=auto "$@"
