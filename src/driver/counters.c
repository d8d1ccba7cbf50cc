// SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only
/*
 * What debugfs shows, in viaduct/: `counters`, one line each with its sentence (counters.def), and
 * `vnics`, one line for each vNIC. Both are for whoever may read debugfs: root.
 */
#include <linux/debugfs.h>
#include <linux/seq_file.h>

#include "driver.h"

DEFINE_PER_CPU(struct vd_counters, vd_total);

static struct dentry *dir;

static const struct {
	const char *name, *sentence;
} texts[VD_COUNTERS] = {
#define VD_COUNTER(name, sentence) {#name, sentence},
#include "counters.def"
#undef VD_COUNTER
};

static int counters_show(struct seq_file *m, void *unused)
{
	int cpu;

	for (u32 i = 0; i < VD_COUNTERS; i++) {
		u64 sum = 0;

		for_each_possible_cpu(cpu)
			sum += per_cpu(vd_total, cpu).n[i];
		seq_printf(m, "%-14s %12llu  %s\n", texts[i].name, sum, texts[i].sentence);
	}
	return 0;
}
DEFINE_SHOW_ATTRIBUTE(counters);

static int vnics_show(struct seq_file *m, void *unused)
{
	const struct vd_vnic *v;

	mutex_lock(&vd_vnics_lock);
	list_for_each_entry(v, &vd_vnics, all)
		seq_printf(m, "user %u pages %lu filters %u received %llu sent %llu%s\n",
			   from_kuid_munged(&init_user_ns, v->cred->euid), v->region.count,
			   READ_ONCE(v->filter_count), READ_ONCE(v->rx_counts[VD_rx_frames]),
			   READ_ONCE(v->tx_counts[VD_tx_frames]),
			   READ_ONCE(v->gone) ? " interface gone" : "");
	mutex_unlock(&vd_vnics_lock);
	return 0;
}
DEFINE_SHOW_ATTRIBUTE(vnics);

void vd_debugfs_make(void)
{
	dir = debugfs_create_dir("viaduct", NULL);
	debugfs_create_file("counters", 0400, dir, NULL, &counters_fops);
	debugfs_create_file("vnics", 0400, dir, NULL, &vnics_fops);
}

void vd_debugfs_remove(void)
{
	debugfs_remove(dir);
}
