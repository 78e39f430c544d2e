// Shares a product out among threads: by columns of weights where rows are few, so that each weight is read from memory once,
// ahead of its use; else by rows, in parts that stay in a processor's own cache.
//
// Included after the multiplying file's Product, ``pack_rows``, ``compute`` and WEIGHTS_A_LINE. The functions work on 32 rows
// and 32 columns. Axes: N rows, E numbers of each, F features of the result.

#include <omp.h>

enum { LINE = WEIGHTS_A_LINE, AHEAD = 128 * LINE, MANY = 128 };  // lines of 64 bytes to fetch ahead; rows for each thread
// A part's packed numbers, of 2 bytes each, leave room in the cache (2 MB) for the weights that they meet. More than two lines
// of these fetched while 32 columns are multiplied would delay the loads that the product itself waits for.
enum { PART = 400 * 1024, LINES = 2, COLUMNS = 64 };

static void share_out_columns(const Product *of) {
#pragma omp for schedule(static)
    for (long n = 0; n < of->N; n += 32) pack_rows(of, n, of->packed + n * of->E);
#pragma omp for schedule(static)
    for (long f = 0; f < of->F; f += 32) {
        for (long n = 0; n < of->N; n += 32) compute(of, of->packed + n * of->E, n, f, AHEAD, n == 0 ? 32 : 0);
    }
}

static void multiply(const Product *of, uint16_t *packed, long begin, long end) {
    for (long n = begin; n < end; n += 32) pack_rows(of, n, packed + (n - begin) * of->E);
    for (long from = 0; from < of->F; from += COLUMNS) {
        for (long n = begin; n < end; n += 32) {
            long fetched = (n - begin) / 32 * of->E / 32 * LINES * LINE;  // of the next columns
            for (long f = from; f < from + COLUMNS && f < of->F; f += 32) {
                compute(of, packed + (n - begin) * of->E, n, f, COLUMNS * of->E + fetched, fetched < 32 * of->E ? LINES : 0);
            }
        }
    }
}

static inline long rows_of_a_part(long E) { return PART / E < 32 ? 32 : PART / E / 32 * 32; }

static void share_out_rows(const Product *of) {
    long blocks = (of->N + 31) / 32, most = rows_of_a_part(of->E), threads = omp_get_num_threads();
    long parts = (blocks * 32 + most * threads - 1) / (most * threads) * threads;
#pragma omp for schedule(static)
    for (long part = 0; part < parts; part++) {
        long begin = blocks * part / parts * 32, end = blocks * (part + 1) / parts * 32;
        multiply(of, of->packed + omp_get_thread_num() * most * of->E, begin, end < of->N ? end : of->N);
    }
}

static void share_out(Product of) {
    long threads = omp_get_max_threads(), many = of.N >= MANY * threads;
    long rows = many ? rows_of_a_part(of.E) * threads : (of.N + 31) / 32 * 32;
    of.packed = aligned_alloc(64, rows * of.E * sizeof(uint16_t));
#pragma omp parallel
    {
#ifdef HAS_TILES
        Tiles before = whole_tiles();
#endif
        if (many) share_out_rows(&of);
        else share_out_columns(&of);
#ifdef HAS_TILES
        set_tiles(&before);
#endif
    }
    free(of.packed);
}
