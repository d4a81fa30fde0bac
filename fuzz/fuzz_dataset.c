// Any bytes as a data set: what opens can be read, record by record, and labelled in any template, and every
// sample holds together: labels are tokens, pictures have their places, and a text cut off is the text's
// start.
#include "pair.h"

#include "train/sample.h"
#include "vocabulary.h"

static const char *const names[] = {"train/bos", "train/no_bos", "text/qwen2", "text/llama3"};
#define N_VOCABULARIES (sizeof names / sizeof *names)

static pd_tokenizer *tokenizers[N_VOCABULARIES];

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerInitialize(int *argc, char ***argv) {
    (void)argc;
    (void)argv;
    for (size_t i = 0; i < N_VOCABULARIES; i++)
        tokenizers[i] = open_golden_vocabulary(names[i]);
    return 0;
}

static void check_labels(const int32_t *tokens, const int32_t *labels, int32_t n) {
    for (int32_t i = 0; i < n; i++) {
        CHECK(tokens[i] >= 0 || tokens[i] == PD_IMAGE_TOKEN);
        CHECK(labels[i] == PD_IGNORE_INDEX || labels[i] == tokens[i]);
        CHECK(tokens[i] >= 0 || labels[i] == PD_IGNORE_INDEX);
    }
}

// The whole conversation, and a sample of at most model_max_length rows of it.
static void check_record(const pd_sample_params *params, int32_t index) {
    pd_error err = {0};
    pd_record record;
    CHECK(pd_dataset_read(params->dataset, index, &record, &err) == PD_OK);
    CHECK(record.n_turns > 0 && record.n_images >= 0);
    for (int32_t i = 1; i < record.n_turns; i++)
        CHECK(record.roles[i] != record.roles[i - 1]);
    pd_labelled whole;
    const pd_status status = pd_label_conversation(&params->labels, &record, &whole, &err);
    if (status == PD_OK) {
        CHECK(whole.n_images == record.n_images);
        check_labels(whole.tokens, whole.labels, whole.n);
    } else {
        check_failure(status, &err);
        CHECK(!whole.tokens && !whole.labels);
    }
    pd_train_sample sample;
    pd_sample_notes notes;
    const pd_status made = pd_sample_make(params, index, &sample, &notes, &err);
    if (made == PD_OK) {
        CHECK(status == PD_OK);
        CHECK(sample.n_rows <= params->labels.model_max_length && sample.n_tokens <= whole.n);
        CHECK(notes.truncated == (sample.n_tokens < whole.n) && notes.mismatch == whole.mismatch);
        CHECK(sample.n_labels > 0 || notes.mismatch);
        check_labels(sample.tokens, sample.labels, sample.n_tokens);
        CHECK(memcmp(sample.tokens, whole.tokens, (size_t)sample.n_tokens * sizeof(int32_t)) == 0);
    } else {
        check_failure(made, &err);
        CHECK(!sample.tokens && !sample.images);
    }
    pd_train_sample_free(&sample);
    pd_labelled_free(&whole);
    pd_record_free(&record);
}

// The first byte chooses vocabulary, template and length; the others are the file.
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size == 0) return 0;
    const size_t choice = data[0];
    memory_file file = memory_file_open("data.json");
    CHECK(fwrite(data + 1, 1, size - 1, file.stream) == size - 1 && fflush(file.stream) == 0);
    pd_error err = {0};
    pd_dataset *dataset = NULL;
    const pd_status status = pd_dataset_open(file.path, &dataset, &err);
    if (status != PD_OK) {
        CHECK(!dataset);
        check_failure(status, &err);
    } else {
        CHECK(pd_dataset_size(dataset) > 0);
        // Pictures are not read here: a model that cannot see refuses them.
        const pd_sample_params params = {
            .dataset = dataset,
            .labels = {.tokenizer = tokenizers[choice % N_VOCABULARIES],
                       .conversation = pd_conversation_at(choice / N_VOCABULARIES % pd_conversation_count()),
                       .legacy = choice & 0x80,
                       .model_max_length = choice & 0x40 ? 40 : 4096}};
        for (int32_t i = 0; i < pd_dataset_size(dataset) && i < 50; i++)
            check_record(&params, i);
    }
    pd_dataset_free(dataset);
    fclose(file.stream);
    return 0;
}
