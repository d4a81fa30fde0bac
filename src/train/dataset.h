// Conversations in LLaVA's JSON: a list of records, or one record a line (JSONL).
//
//     {"id": "17", "image": "a.png", "conversations": [{"from": "human", "value": "<image>\nWhat is it?"},
//                                                      {"from": "gpt", "value": "A cat."}]}
//
// The file stays mapped. Opening it reads every record once, checks it, and keeps 16 bytes about it: its
// place and its length; reading a record parses its few bytes again.
#pragma once

#include "base/file.h"

typedef struct pd_dataset pd_dataset;

// One conversation. Everything points into memory of its own.
typedef struct pd_record {
    int64_t index;   // in the data set
    char name[96];   // for messages: record 17 (id "x")
    int32_t n_turns; // at least 1; users and assistants by turns, either first
    const pd_role *roles;
    const char *const *texts; // UTF-8, NUL-terminated
    int32_t n_images;
    const char *const *images; // as the file names them
    void *memory;              // all of the above
    void *document;
} pd_record;

// PD_ERR_FORMAT names file, line and column where the JSON is broken, else file, record, field and what was
// expected. Checked are the types of all fields used, that users and assistants take turns, and that there is
// a placeholder "<image>" for every picture. With one picture this is one turn with placeholders, as LLaVA
// makes one of those in a turn; with several, or none, they are counted.
pd_status pd_dataset_open(const char *path, pd_dataset **dataset, pd_error *err);
void pd_dataset_free(pd_dataset *dataset);

const char *pd_dataset_path(const pd_dataset *dataset);
// How many records there are: 1 … INT32_MAX.
int32_t pd_dataset_size(const pd_dataset *dataset);
// LLaVA's modality_lengths: the words of all turns, negative for a record without pictures.
int32_t pd_dataset_length(const pd_dataset *dataset, int32_t index);
// The same for all records, [pd_dataset_size()].
const int32_t *pd_dataset_lengths(const pd_dataset *dataset);

// Record `index`, for the caller to free; any number of threads may read at once.
pd_status pd_dataset_read(const pd_dataset *dataset, int32_t index, pd_record *record, pd_error *err);
void pd_record_free(pd_record *record);
