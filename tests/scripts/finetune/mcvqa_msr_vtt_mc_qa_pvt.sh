#!/bin/sh
# Answers with the model of ret_msr_vtt_pvt.sh, which it does not train. Arguments override. Predictions alone:
#   sh mcvqa_msr_vtt_mc_qa_pvt.sh training_parameters.run_type predict training_parameters.save_dir save/predict/mcqa_msrvtt_mc_pvt
exec antmmf run finetune/mcqa_msrvtt_mc_pvt --nproc-per-node auto \
    training_parameters.save_dir=save/finetune/mcqa_msrvtt_mc_pvt training_parameters.resume=auto "$@"
