"""SNP-S3: shared network pre-training with significant semantic strengthening."""

from __future__ import annotations

from antmmf_tasks.tasks.pretraining import Pretraining


class Snps3(Pretraining):
    """SNP-S3 (TCSVT 2023): one network for texts alone and with videos, masked significant words (MSSM), and local
    vision-word matching (LVWM). With a ``fusion_encoder`` and ``masking.policy: mlm`` it is the baseline P3E.

    Losses and parameters are those of ``antmmf_tasks.tasks.pretraining.Pretraining``, described in
    docs/methods/snp_s3.md.
    """
