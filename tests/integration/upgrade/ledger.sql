BEGIN TRANSACTION;
CREATE TABLE alembic_version (
	version_num VARCHAR(32) NOT NULL, 
	CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
);
INSERT INTO "alembic_version" VALUES('0001');
CREATE TABLE attempt (
	delivery_id TEXT NOT NULL, 
	n INTEGER NOT NULL, 
	at DOUBLE NOT NULL, 
	seconds DOUBLE NOT NULL, 
	ok BOOLEAN NOT NULL, 
	error TEXT DEFAULT '' NOT NULL, 
	CONSTRAINT pk_attempt PRIMARY KEY (delivery_id, n)
);
INSERT INTO "attempt" VALUES('dlv-01m8pyqn5wtpk7zs051cme9qy7',1,1.79606675998630523679e+09,0.0900173320005706,0,'http://127.0.0.1:26534/: Connect call failed (''127.0.0.1'', 26534)');
CREATE TABLE call (
	id INTEGER NOT NULL, 
	asterisk TEXT NOT NULL, 
	uniqueid TEXT NOT NULL, 
	epoch BIGINT DEFAULT '0' NOT NULL, 
	linkedid TEXT DEFAULT '' NOT NULL, 
	channel TEXT DEFAULT '' NOT NULL, 
	context TEXT DEFAULT '' NOT NULL, 
	caller TEXT DEFAULT '' NOT NULL, 
	called TEXT DEFAULT '' NOT NULL, 
	answered_at DOUBLE NOT NULL, 
	ended_at DOUBLE, 
	required BOOLEAN DEFAULT 0 NOT NULL, 
	recording_id TEXT DEFAULT '' NOT NULL, 
	verdict TEXT DEFAULT '' NOT NULL, 
	reason TEXT DEFAULT '' NOT NULL, 
	CONSTRAINT pk_call PRIMARY KEY (id), 
	CONSTRAINT uq_call_asterisk_uniqueid_epoch UNIQUE (asterisk, uniqueid, epoch)
);
CREATE TABLE delivery (
	id TEXT NOT NULL, 
	recording_id TEXT NOT NULL, 
	sink TEXT NOT NULL, 
	call_key TEXT NOT NULL, 
	home TEXT NOT NULL, 
	status TEXT NOT NULL, 
	attempts INTEGER DEFAULT '0' NOT NULL, 
	fence INTEGER DEFAULT '0' NOT NULL, 
	held_by TEXT DEFAULT '' NOT NULL, 
	next_at DOUBLE NOT NULL, 
	created_at DOUBLE NOT NULL, 
	first_at DOUBLE, 
	done_at DOUBLE, 
	last_error TEXT DEFAULT '' NOT NULL, 
	CONSTRAINT pk_delivery PRIMARY KEY (id), 
	CONSTRAINT uq_delivery_recording_id_sink UNIQUE (recording_id, sink)
);
INSERT INTO "delivery" VALUES('dlv-01m8pyqn5wtpk7zs051cme9qy7','rec-01m8pyqhxfjjwbs0t5wwq8sg83','crm','pbx/1.1','one','waiting',1,1,'',1.79606676375085234638e+09,1.79606675986809921261e+09,1.79606675997375512124e+09,NULL,'http://127.0.0.1:26534/: Connect call failed (''127.0.0.1'', 26534)');
CREATE TABLE journal (
	seq INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, 
	recording_id TEXT NOT NULL, 
	at DOUBLE NOT NULL, 
	event TEXT NOT NULL, 
	from_phase TEXT DEFAULT '' NOT NULL, 
	to_phase TEXT DEFAULT '' NOT NULL, 
	detail JSON NOT NULL
);
INSERT INTO "journal" VALUES(1,'rec-01m8pyqhxfjjwbs0t5wwq8sg83',1.79606675652733302115e+09,'requested','','requested','{}');
INSERT INTO "journal" VALUES(2,'rec-01m8pyqhxfj259xtveztp1vb78',1.7960667565279924869e+09,'requested','','requested','{}');
INSERT INTO "journal" VALUES(3,'rec-01m8pyqhxgyw1scvyc0s6x9gnw',1.79606675652859091758e+09,'requested','','requested','{}');
INSERT INTO "journal" VALUES(4,'rec-01m8pyqhxg8p4ytd4h096bp5mz',1.79606675652875494957e+09,'requested','','requested','{}');
INSERT INTO "journal" VALUES(5,'rec-01m8pyqhxmahcqxtyr4pmafbc9',1.79606675653295612339e+09,'requested','','requested','{}');
INSERT INTO "journal" VALUES(6,'rec-01m8pyqhxfjjwbs0t5wwq8sg83',1.7960667567342374325e+09,'started','requested','active','{}');
INSERT INTO "journal" VALUES(7,'rec-01m8pyqhxfj259xtveztp1vb78',1.79606675673434519765e+09,'started','requested','active','{}');
INSERT INTO "journal" VALUES(8,'rec-01m8pyqhxgyw1scvyc0s6x9gnw',1.79606675673437690731e+09,'started','requested','active','{}');
INSERT INTO "journal" VALUES(9,'rec-01m8pyqhxg8p4ytd4h096bp5mz',1.79606675673440623281e+09,'started','requested','active','{}');
INSERT INTO "journal" VALUES(10,'rec-01m8pyqhxmahcqxtyr4pmafbc9',1.79606675673443126682e+09,'started','requested','active','{}');
INSERT INTO "journal" VALUES(11,'rec-01m8pyqhxgyw1scvyc0s6x9gnw',1.79606675958618712419e+09,'paused','active','paused','{}');
INSERT INTO "journal" VALUES(12,'rec-01m8pyqhxg8p4ytd4h096bp5mz',1.79606675958628964418e+09,'paused','active','paused','{}');
INSERT INTO "journal" VALUES(13,'rec-01m8pyqhxfjjwbs0t5wwq8sg83',1.79606675958634281163e+09,'hung_up','active','closing','{}');
INSERT INTO "journal" VALUES(14,'rec-01m8pyqhxfjjwbs0t5wwq8sg83',1.79606675976914238928e+09,'closed','closing','finishing','{}');
INSERT INTO "journal" VALUES(15,'rec-01m8pyqhxfjjwbs0t5wwq8sg83',1.79606675986809921261e+09,'finished','finishing','finished','{}');
INSERT INTO "journal" VALUES(16,'rec-01m8pyqhxg8p4ytd4h096bp5mz',1.79606675995951199534e+09,'piece','','','{}');
INSERT INTO "journal" VALUES(17,'rec-01m8pyqhxg8p4ytd4h096bp5mz',1.79606676008080577851e+09,'resumed','paused','active','{}');
INSERT INTO "journal" VALUES(18,'rec-01m8pyqhxg8p4ytd4h096bp5mz',1.79606676023106813433e+09,'muted','','','{}');
CREATE TABLE recording (
	id TEXT NOT NULL, 
	node TEXT NOT NULL, 
	asterisk TEXT NOT NULL, 
	system TEXT DEFAULT '' NOT NULL, 
	channel TEXT DEFAULT '' NOT NULL, 
	uniqueid TEXT DEFAULT '' NOT NULL, 
	linkedid TEXT DEFAULT '' NOT NULL, 
	recorder TEXT DEFAULT '' NOT NULL, 
	name TEXT DEFAULT '' NOT NULL, 
	file_path TEXT DEFAULT '' NOT NULL, 
	phase TEXT NOT NULL, 
	cause TEXT NOT NULL, 
	state TEXT NOT NULL, 
	error TEXT DEFAULT '' NOT NULL, 
	caller TEXT DEFAULT '' NOT NULL, 
	called TEXT DEFAULT '' NOT NULL, 
	file_format TEXT DEFAULT '' NOT NULL, 
	requested_at DOUBLE NOT NULL, 
	started_at DOUBLE, 
	ended_at DOUBLE, 
	finished_at DOUBLE, 
	audio_seconds DOUBLE, 
	bytes BIGINT, 
	sha256 TEXT DEFAULT '' NOT NULL, 
	adopted BOOLEAN DEFAULT 0 NOT NULL, 
	legal_hold BOOLEAN DEFAULT 0 NOT NULL, 
	deleted_at DOUBLE, 
	updated_at DOUBLE NOT NULL, 
	spec JSON NOT NULL, 
	pieces JSON NOT NULL, 
	pauses JSON NOT NULL, 
	sinks JSON NOT NULL, 
	facts JSON NOT NULL, 
	CONSTRAINT pk_recording PRIMARY KEY (id)
);
INSERT INTO "recording" VALUES('rec-01m8pyqhxfjjwbs0t5wwq8sg83','one','pbx','','PJSIP/far-00000001','1.1','1.1','','done','/FOLDER/recordings/done.wav','finished','HANGUP','IDLE','','0221555001','s','alaw',1.79606675652733302115e+09,1.79606675672443652155e+09,1.79606675958631873128e+09,1.7960667598680701255e+09,2.892,23196,'f1856355957358817dc47cc86946487ff9bf72d5423bc508e6c1a415c0d77126',0,0,NULL,1.79606675986809921261e+09,'{"file_format": "alaw", "rate": 8000, "seconds_timeout": null, "max_bytes": 0, "milliseconds_max_silence": 0, "milliseconds_initial_silence": 0, "dtmf_elim": false, "recording_mode": "mixed", "encryption": "", "engine": "mixmonitor", "pause_mode": "silence", "beep_seconds": 0, "beep_start": false, "beep_stop": false, "follow": true}','[{"mixed": "/FOLDER/spool/rec-01m8pyqhxfjjwbs0t5wwq8sg83.wav", "received": "", "sent": "", "channel": "PJSIP/far-00000001", "uniqueid": "1.1", "started_at": 1796066756.7244365, "monitor_id": "0x7f5d1c002e00", "ended_at": 0.0, "after": "", "turned": false, "lost": false, "seen": true}]','[]','["crm"]','{"salvaged": false, "silent": false, "one_sided": false, "level": {"peak_dbfs": -4.4, "rms_dbfs": -7.4, "active_seconds": 2.89, "silent": false}, "dtmf": {"removed": 0, "spans": []}}');
INSERT INTO "recording" VALUES('rec-01m8pyqhxfj259xtveztp1vb78','one','pbx','','PJSIP/far-00000002','1.2','1.2','','running','/FOLDER/recordings/running.wav','active','NONE','RECORDING','','0221555002','s','alaw',1.7960667565279924869e+09,1.796066756733607769e+09,NULL,NULL,NULL,NULL,'',0,0,NULL,1.79606675673434519765e+09,'{"file_format": "alaw", "rate": 8000, "seconds_timeout": null, "max_bytes": 0, "milliseconds_max_silence": 0, "milliseconds_initial_silence": 0, "dtmf_elim": false, "recording_mode": "mixed", "encryption": "", "engine": "mixmonitor", "pause_mode": "silence", "beep_seconds": 0, "beep_start": false, "beep_stop": false, "follow": true}','[{"mixed": "/FOLDER/spool/rec-01m8pyqhxfj259xtveztp1vb78.wav", "received": "", "sent": "", "channel": "PJSIP/far-00000002", "uniqueid": "1.2", "started_at": 1796066756.7336078, "monitor_id": "0x7f5d1c002e10", "ended_at": 0.0, "after": "", "turned": false, "lost": false, "seen": true}]','[]','["crm"]','{}');
INSERT INTO "recording" VALUES('rec-01m8pyqhxgyw1scvyc0s6x9gnw','one','pbx','','PJSIP/far-00000003','1.3','1.3','','paused','/FOLDER/recordings/paused.wav','paused','NONE','RECORDING','','0221555003','s','alaw',1.79606675652859091758e+09,1.79606675673368787766e+09,NULL,NULL,NULL,NULL,'',0,0,NULL,1.79606675958618712419e+09,'{"file_format": "alaw", "rate": 8000, "seconds_timeout": null, "max_bytes": 0, "milliseconds_max_silence": 0, "milliseconds_initial_silence": 0, "dtmf_elim": false, "recording_mode": "mixed", "encryption": "", "engine": "mixmonitor", "pause_mode": "silence", "beep_seconds": 0, "beep_start": false, "beep_stop": false, "follow": true}','[{"mixed": "/FOLDER/spool/rec-01m8pyqhxgyw1scvyc0s6x9gnw.wav", "received": "", "sent": "", "channel": "PJSIP/far-00000003", "uniqueid": "1.3", "started_at": 1796066756.7336879, "monitor_id": "0x7f5d1c002e20", "ended_at": 1796066759.5861616, "after": "", "turned": false, "lost": false, "seen": true}]','[[2.852, null]]','["crm"]','{"resume_at": 1796070359.586}');
INSERT INTO "recording" VALUES('rec-01m8pyqhxg8p4ytd4h096bp5mz','one','pbx','','PJSIP/far-00000004','1.4','1.4','','resumed','/FOLDER/recordings/resumed.wav','active','NONE','RECORDING','','0221555004','s','alaw',1.79606675652875494957e+09,1.79606675673371696472e+09,NULL,NULL,NULL,NULL,'',0,0,NULL,1.79606676023106813433e+09,'{"file_format": "alaw", "rate": 8000, "seconds_timeout": null, "max_bytes": 0, "milliseconds_max_silence": 0, "milliseconds_initial_silence": 0, "dtmf_elim": false, "recording_mode": "mixed", "encryption": "", "engine": "mixmonitor", "pause_mode": "silence", "beep_seconds": 0, "beep_start": false, "beep_stop": false, "follow": true}','[{"mixed": "/FOLDER/spool/rec-01m8pyqhxg8p4ytd4h096bp5mz.wav", "received": "", "sent": "", "channel": "PJSIP/far-00000004", "uniqueid": "1.4", "started_at": 1796066756.733717, "monitor_id": "0x7f5d1c002e30", "ended_at": 1796066759.5862823, "after": "", "turned": false, "lost": false, "seen": true}, {"mixed": "/FOLDER/spool/rec-01m8pyqhxg8p4ytd4h096bp5mz-1.wav", "received": "", "sent": "", "channel": "PJSIP/far-00000004", "uniqueid": "1.4", "started_at": 1796066760.0773144, "monitor_id": "0x7f5d1c002e50", "ended_at": 0.0, "after": "pause", "turned": false, "lost": false, "seen": true}]','[[2.853, 3.347]]','["crm"]','{"muted": {"received": [[3.497, null]]}}');
INSERT INTO "recording" VALUES('rec-01m8pyqhxmahcqxtyr4pmafbc9','one','pbx','','PJSIP/far-00000005','1.5','1.5','','ledger-away','/FOLDER/recordings/ledger-away.wav','active','NONE','RECORDING','','0221555005','s','alaw',1.79606675653295612339e+09,1.79606675673373985288e+09,NULL,NULL,NULL,NULL,'',0,0,NULL,1.79606675673443126682e+09,'{"file_format": "alaw", "rate": 8000, "seconds_timeout": null, "max_bytes": 0, "milliseconds_max_silence": 0, "milliseconds_initial_silence": 0, "dtmf_elim": false, "recording_mode": "mixed", "encryption": "", "engine": "mixmonitor", "pause_mode": "silence", "beep_seconds": 0, "beep_start": false, "beep_stop": false, "follow": true}','[{"mixed": "/FOLDER/spool/rec-01m8pyqhxmahcqxtyr4pmafbc9.wav", "received": "", "sent": "", "channel": "PJSIP/far-00000005", "uniqueid": "1.5", "started_at": 1796066756.7337399, "monitor_id": "0x7f5d1c002e40", "ended_at": 0.0, "after": "", "turned": false, "lost": false, "seen": true}]','[]','["crm"]','{}');
CREATE TABLE recording_key (
	recording_id TEXT NOT NULL, 
	scheme TEXT NOT NULL, 
	wrapped BLOB NOT NULL, 
	CONSTRAINT pk_recording_key PRIMARY KEY (recording_id)
);
CREATE TABLE server (
	node TEXT NOT NULL, 
	started_at DOUBLE NOT NULL, 
	heartbeat_at DOUBLE NOT NULL, 
	version TEXT DEFAULT '' NOT NULL, 
	sinks JSON NOT NULL, 
	CONSTRAINT pk_server PRIMARY KEY (node)
);
INSERT INTO "server" VALUES('one',1.79606675644975805278e+09,1.79606675867564201352e+09,'','["crm", "object:@9fa0e40eb0"]');
CREATE INDEX ix_call_answered_at ON call (answered_at);
CREATE INDEX ix_call_linkedid ON call (linkedid);
CREATE INDEX ix_delivery_due ON delivery (sink, next_at) WHERE status = 'waiting';
CREATE INDEX ix_delivery_order ON delivery (sink, call_key, id);
CREATE INDEX ix_delivery_status_next_at ON delivery (status, next_at);
CREATE INDEX ix_journal_recording_id ON journal (recording_id);
CREATE INDEX ix_recording_called ON recording (called);
CREATE INDEX ix_recording_caller ON recording (caller);
CREATE INDEX ix_recording_channel ON recording (channel);
CREATE INDEX ix_recording_file_path ON recording (file_path);
CREATE INDEX ix_recording_linkedid ON recording (linkedid);
CREATE INDEX ix_recording_open ON recording (node, phase) WHERE phase IN ('requested', 'active', 'paused', 'stopping', 'closing', 'finishing');
CREATE INDEX ix_recording_requested_at ON recording (requested_at);
CREATE INDEX ix_recording_started_at ON recording (started_at);
CREATE INDEX ix_recording_uniqueid ON recording (uniqueid);
DELETE FROM "sqlite_sequence";
INSERT INTO "sqlite_sequence" VALUES('journal',18);
COMMIT;
