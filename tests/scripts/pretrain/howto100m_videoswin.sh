#!/bin/sh
# Started again, it goes on. Arguments override: sh howto100m_videoswin.sh dataset_attributes.data_root_dir=/data
exec antmmf run pretrain/howto100m_videoswin --nproc-per-node auto \
    training_parameters.save_dir=save/pretrain/howto100m_videoswin training_parameters.resume=auto "$@"
