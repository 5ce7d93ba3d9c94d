// What a page has to be by Grafana's own types. The test writes each page below this, as a literal of type Page.
import type { Dashboard, DataQuery, DataSourceRef, Panel, RowPanel } from '@grafana/schema';
import type * as stat from '@grafana/schema/dist/esm/raw/composable/stat/panelcfg/x/StatPanelCfg_types.gen';
import type * as table from '@grafana/schema/dist/esm/raw/composable/table/panelcfg/x/TablePanelCfg_types.gen';
import type * as timeseries from '@grafana/schema/dist/esm/raw/composable/timeseries/panelcfg/x/TimeSeriesPanelCfg_types.gen';

// JSON knows no enums: their texts stand for them. Numbers may be those of the enum alone.
type Written<T> = T extends string ? `${T}` : T extends object ? { [K in keyof T]: Written<T[K]> } : T;

type Query = DataQuery & { datasource: DataSourceRef } & (
    | { expr: string; legendFormat: string; range: true; instant?: false }
    | { rawSql: string; rawQuery: true; format: 'table'; editorMode: 'code' }
  );

type Shown<Kind extends string, Options, Custom> = Omit<Panel<Options, Custom>, 'type' | 'options' | 'targets'> & {
  type: Kind;
  title: string;
  description: string;
  options: Options;
  targets: Query[];
};

type AnyPanel =
  | Shown<'timeseries', timeseries.Options, timeseries.FieldConfig>
  | Shown<'stat', stat.Options, Record<string, never>>
  | Shown<'table', table.Options, Partial<table.FieldConfig>>;

export type Page = Written<Omit<Dashboard, 'panels'> & { uid: string; panels: (AnyPanel | RowPanel)[] }>;
