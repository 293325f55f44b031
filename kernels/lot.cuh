// Elements that are copied at once: as many as fill 16 bytes.
#pragma once
#include "element.cuh"

const u32 kPerChunk = 16 / sizeof(Element);

union Lot {
    Chunk chunk;
    Element element[kPerChunk];
};
