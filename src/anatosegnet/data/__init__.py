"""Cases, splits, datasets, and one data module per dataset."""

from anatosegnet.face import face

__getattr__, __dir__, __all__ = face(
    __name__,
    {
        "datasets.breast_lesions_usg": "BreastLesionsUSGDataModule",
        "datasets.bus_bra": "BUSBRADataModule",
        "datasets.bus_uclm": "BUSUCLMDataModule",
        "datasets.busi": "BUSIDataModule",
        "datasets.folder": "FolderDataModule",
        "datasets.phantom": "PhantomDataModule",
        "case": "Case",
        "datamodule": "SegmentationDataModule",
        "split": "Split HoldoutSplit KFoldSplit OfficialSplit ReleasedSplit FilesSplit "
        "benchmark_split",
        "transforms": "released_augmentation",
        "ultrasound": "AcousticShadow DepthGain Gain Speckle TissueDeformation",
    },
)
