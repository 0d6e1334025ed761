#!/bin/sh
# Started again, it goes on. Arguments override: sh cc_videoswin.sh dataset_attributes.data_root_dir=/data
exec antmmf run pretrain/cc_videoswin --nproc-per-node auto \
    training_parameters.save_dir=save/pretrain/cc_videoswin training_parameters.resume=auto "$@"
