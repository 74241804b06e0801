/* array.h: an array on the host with its twin on the device, and numbers by lot to fill it. */
#ifndef TESTS_EMU_ARRAY_H
#define TESTS_EMU_ARRAY_H

#include <cstddef>
#include <cstdint>
#include <vector>

/* The same seed gives the same numbers from there on. */
void lot_begin(uint64_t seed);

/* -1 to 1. */
double lot_draw(void);

/* Whose memory array::at() and struct blank give. */
extern bool on_device;

/* Exactly as long as it is: a sanitizer sees a step beyond. */
struct array {
    uint32_t dtype;
    size_t n;
    std::vector<char> bytes;
    void *dev;

    /* Within -scale to scale, on both sides; 0: NaN. */
    array(uint32_t dtype, size_t n, double scale);
    array(const array &a);
    ~array();
    array &operator=(const array &) = delete;

    void *at(size_t i);
    double value(size_t i); // the host's
    void put(void);         // to the device
    void get(void);         // back from it
};

/* Bytes that nobody has written. */
struct blank {
    void *p;

    explicit blank(size_t n);
    blank(const blank &) = delete;
    ~blank();
};

#endif
