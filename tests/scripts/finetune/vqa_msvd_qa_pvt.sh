#!/bin/sh
# Started again, it goes on. Arguments override. Predictions of what it has trained:
#   sh vqa_msvd_qa_pvt.sh training_parameters.run_type predict training_parameters.save_dir save/predict/vqa_msvd_qa_pvt \
#       training_parameters.resume_file save/finetune/vqa_msvd_qa_pvt
exec antmmf run finetune/vqa_msvd_qa_pvt --nproc-per-node auto \
    training_parameters.save_dir=save/finetune/vqa_msvd_qa_pvt training_parameters.resume=auto "$@"
