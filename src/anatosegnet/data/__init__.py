"""Sources of cases, splits, and what is prepared and loaded of them for training."""

from anatosegnet.face import face

__getattr__, __dir__, __all__ = face(
    __name__,
    {
        "datasets.breast_lesions_usg": "BreastLesionsUSGSource",
        "datasets.bus_bra": "BUSBRASource",
        "datasets.bus_uclm": "BUSUCLMSource",
        "datasets.busi": "BUSISource",
        "datasets.folder": "FolderSource",
        "datasets.phantom": "PhantomSource",
        "case": "Case CaseError Problem read_image read_mask",
        "datamodule": "SegmentationDataModule",
        "prepared": "DataSettings FoundData PreparedData find_data prepare_data",
        "source": "Found Source",
        "split": "Split HoldoutSplit KFoldSplit OfficialSplit ReleasedSplit FilesSplit "
        "benchmark_split",
        "transforms": "released_augmentation",
        "ultrasound": "AcousticShadow DepthGain Gain Speckle TissueDeformation",
    },
)
