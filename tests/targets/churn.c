/* Lives inside malloc. */
#include <stdlib.h>

void churn(void) {
    void *blocks[64] = {0};
    for (unsigned i = 0;; i++) {
        free(blocks[i % 64]);
        blocks[i % 64] = malloc(16 + i * 37 % 200000);
        if (blocks[i % 64] != NULL) {
            *(volatile char *)blocks[i % 64] = 1;
        }
    }
}
