"""Small public data sets, with the column names and the peculiarities of their label files."""

import gzip
import os
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

LABEL_FILES = Path("data/label-files/torchxrayvision/data")  # `make label-files` unpacks them there
CHEXPERT_COLUMNS = (
    "Path,Sex,Age,Frontal/Lateral,AP/PA,No Finding,Enlarged Cardiomediastinum,Cardiomegaly,Lung Opacity,Lung Lesion,"
    "Edema,Consolidation,Pneumonia,Atelectasis,Pneumothorax,Pleural Effusion,Pleural Other,Fracture,Support Devices"
)


def find_label_file(name):
    """Return the path of a real label file; skips the test where it is not unpacked."""
    path = LABEL_FILES / name
    if not path.is_file():
        pytest.skip(f"no {path}: `make label-files` fetches it")
    return path


def read_texts(path, **options):
    return pd.read_csv(path, dtype=str, keep_default_na=False, **options)


def write_images(folder, names):
    """Write the same small image under each name, with its folders."""
    folder.mkdir(parents=True, exist_ok=True)
    Image.new("L", (32, 32), 99).save(folder / ".image", "PNG")
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        os.link(folder / ".image", path)


def write_packed(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(text.encode()))


def write_chexpert(folder):
    """CheXpert's small release: twelve training images, one of them lateral by its view alone, and a validation set."""
    rows = [
        f"CheXpert-v1.0-small/train/patient{k:05d}/study1/view1_frontal.jpg,{'Female' if k % 2 else 'Male'},{50 + k},"
        f"Frontal,{'LL' if k == 3 else 'AP'},{'1.0' if k == 1 else ''},,{'1.0' if k % 3 == 0 else ''},,,,"
        f"{'-1.0' if k == 2 else ''},,,,{'0.0' if k == 4 else '1.0' if k == 5 else ''},,,1.0"
        for k in range(1, 12)
    ]
    rows.append("CheXpert-v1.0-small/train/patient00011/study1/view2_lateral.jpg,Male,61,Lateral,,,,,,,,,,,,,,,")
    valid = [f"CheXpert-v1.0-small/valid/patient6454{k}/study1/view1_frontal.jpg,Male,70,Frontal,PA" + ",0.0" * 14
             for k in range(4)]  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "train.csv").write_text("\n".join([CHEXPERT_COLUMNS, *rows]) + "\n")
    (folder / "valid.csv").write_text("\n".join([CHEXPERT_COLUMNS, *valid]) + "\n")
    write_images(folder, [row.partition("/")[2].partition(",")[0] for row in [*rows, *valid]])
    return folder


def write_mimic(folder):
    """MIMIC-CXR-JPG: eight images of six studies; one study without labels, one image without a split."""
    metadata, split, labels = [], [], []
    views = ["PA", "AP", "LATERAL", "LL", "", "AP AXIAL", "AP LLD", "PA"]
    for k, view in enumerate(views):
        subject, study = 10000 + k // 2, 50000 + k - (k == 1)
        metadata.append(f"dicom{k},{subject},{study},CHEST,{view},3056,2544")
        if k != 6:
            split.append(f"dicom{k},{study},{subject},{'test' if k >= 4 else 'validate' if k == 2 else 'train'}")
        if k not in (1, 3):
            labels.append(f"{subject},{study},1.0,,{'-1.0' if k == 2 else '0.0'}" + "," * 11)
    names = "Atelectasis,Cardiomegaly,Consolidation,Edema,Enlarged Cardiomediastinum,Fracture,Lung Lesion,Lung Opacity"
    names += ",No Finding,Pleural Effusion,Pleural Other,Pneumonia,Pneumothorax,Support Devices"
    tables = {
        "metadata": (
            "dicom_id,subject_id,study_id,Description,ViewPosition,Rows,Columns",
            metadata,
        ),
        "split": ("dicom_id,study_id,subject_id,split", split),
        "chexpert": (f"subject_id,study_id,{names}", labels),
    }
    for name, (header, rows) in tables.items():
        write_packed(folder / f"mimic-cxr-2.0.0-{name}.csv.gz", "\n".join([header, *rows]) + "\n")
    write_images(folder, [f"files/p10/p{10000 + k // 2}/s{50000 + k - (k == 1)}/dicom{k}.jpg" for k in range(8)])
    return folder


def write_padchest(folder):
    """PadChest: eight images with all kinds of labels, in two folders."""
    given = [
        "['normal']", "['pleural effusion', ' nodule']", "['unchanged']", "nan", "['exclude']",
        "['normal', 'scoliosis']",
        "['suboptimal study', 'cardiomegaly ']", "[' normal', 'unchanged']",
    ]  # fmt: skip
    views = ["PA", "L", "AP_horizontal", "PA", "PA", "COSTAL", "UNK", "AP"]
    rows = [
        f"{k},image{k}.png,{k % 2},2014{k + 1:02d}15,study{k},patient{k % 6},{'None' if k == 7 else 1930.0 + k},"
        f'{"FM"[k % 2]},{view},Physician,"{labels}"'
        for k, (labels, view) in enumerate(zip(given, views, strict=True))
    ]
    header = ",ImageID,ImageDir,StudyDate_DICOM,StudyID,PatientID,PatientBirth,PatientSex_DICOM,Projection"
    header += ",MethodLabel,Labels"
    name = "PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv.gz"
    write_packed(folder / name, "\n".join([header, *rows]) + "\n")
    write_images(folder, [f"{k % 2}/image{k}.png" for k in range(8)])
    return folder
